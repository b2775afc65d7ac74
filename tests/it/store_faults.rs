//! Faults between the store and the database: lost replies, and errors that are to be retried.
//!
//! The proxy writes the errors of a failover itself, since the database of the test bed has no failover.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc};
use orders_operator::{
    order::{OrderId, OrderStatus, ReservationTerms, UserId},
    store::{ConnectOptions, ExpiryQuery, Reserved, Store},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use crate::mongo::{TestDatabase, by_way_of};

/// What happens to the first request with the chosen command; its connection is closed afterwards.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server carries it out, and its reply is lost.
    LostReply,
    /// The server carries it out, and the reply is this error.
    ErrorAfter(i32, &'static str),
    /// The server never sees it, and the reply is this error.
    ErrorInstead(i32, &'static str),
}

/// A proxy to the database with one fault.
struct FaultyProxy {
    store: Store,
    happened: Arc<AtomicU32>,
}

impl FaultyProxy {
    async fn to(database: &TestDatabase, command: &str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (uri, behind) = by_way_of(listener.local_addr().unwrap().port());
        let happened = Arc::new(AtomicU32::new(0));
        // The name of a command is the first key of its document, so a NUL byte follows it.
        let (pattern, count) = ([command.as_bytes(), b"\0"].concat(), happened.clone());
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let there = TcpStream::connect(&behind).await.unwrap();
                tokio::spawn(forward(here, there, fault, pattern.clone(), count.clone()));
            }
        });
        let options = ConnectOptions { database: Some(&database.name), ..ConnectOptions::new(&uri) };
        Self { store: Store::connect(options).await.unwrap(), happened }
    }

    /// Whether the fault has happened; a test proves nothing without it.
    fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst) == 1
    }
}

async fn forward(
    here: TcpStream,
    there: TcpStream,
    fault: Fault,
    pattern: Vec<u8>,
    happened: Arc<AtomicU32>,
) {
    let ((mut from_here, mut to_here), (mut from_there, mut to_there)) =
        (here.into_split(), there.into_split());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let replies = tokio::spawn(async move {
        tokio::select! {
            _ = copy(&mut from_there, &mut to_here) => None,
            Ok(()) = stopped => Some((from_there, to_here)),
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_here.read(&mut buffer).await {
        let request = buffer[..read].to_vec();
        let matches = request.windows(pattern.len()).any(|window| window == pattern);
        if matches && happened.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            // From now on, no reply of the server is forwarded.
            let _ = stop.send(());
            let Some((mut from_there, mut to_here)) = replies.await.unwrap() else { return };
            if !matches!(fault, Fault::ErrorInstead(..)) {
                to_there.write_all(&request).await.unwrap();
                let _ = from_there.read(&mut buffer).await;
            }
            if let Fault::ErrorAfter(code, text) | Fault::ErrorInstead(code, text) = fault {
                to_here.write_all(&error_reply(&request, code, text)).await.unwrap();
            }
            return;
        }
        if to_there.write_all(&request).await.is_err() {
            return;
        }
    }
}

/// The OP_MSG of a server that replies to `request` with an error.
fn error_reply(request: &[u8], code: i32, text: &str) -> Vec<u8> {
    let document = doc! { "ok": 0.0, "errmsg": text, "code": code }.to_vec().unwrap();
    let (id, op_msg, no_flags) = (&request[4..8], 2013_i32, 0_u32);
    let length = i32::try_from(21 + document.len()).unwrap();
    [
        &length.to_le_bytes()[..],
        &1_i32.to_le_bytes(),
        id,
        &op_msg.to_le_bytes(),
        &no_flags.to_le_bytes(),
        &[0],
        &document,
    ]
    .concat()
}

/// What a writer sees of a conflicting write or a failover: it cannot know whether its write has happened.
const FAULTS: [Fault; 7] = [
    Fault::LostReply,
    Fault::ErrorInstead(112, "WriteConflict error: this operation conflicted with another operation"),
    Fault::ErrorInstead(1, "deadlock detected"),
    Fault::ErrorInstead(10107, "not primary"),
    Fault::ErrorAfter(189, "the primary stepped down while the operation was in progress"),
    Fault::ErrorAfter(91, "the server is in quiesce mode and will shut down"),
    Fault::ErrorAfter(11602, "operation was interrupted because of a change of state"),
];

#[tokio::test]
async fn a_reservation_is_made_once_and_succeeds_despite_any_fault() {
    for fault in FAULTS {
        let database = TestDatabase::new().await;
        let ticket = database.ticket().await;
        let proxy = FaultyProxy::to(&database, "insert", fault).await;
        let (user, terms) = (UserId::new("u1").unwrap(), ReservationTerms::default());
        let reserved = proxy.store.reserve(&user, ticket, None, Timestamp::now(), &terms).await;
        let Ok(Reserved::New(reservation)) = reserved else { panic!("{fault:?}: {reserved:?}") };
        assert!(proxy.happened());
        assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1, "{fault:?}");
        let stored = database.store.order(reservation.order.id).await.unwrap().unwrap();
        assert_eq!(stored, reservation);
    }
}

#[tokio::test]
async fn a_cancellation_adds_one_version_despite_any_fault() {
    for fault in FAULTS {
        let database = TestDatabase::new().await;
        let id = database.mongoose_order(doc! {}).await.parse().unwrap();
        let proxy = FaultyProxy::to(&database, "findAndModify", fault).await;
        proxy.store.cancel(id, &UserId::new("u1").unwrap()).await.unwrap();
        assert!(proxy.happened());
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Cancelled, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_payment_adds_one_version_despite_any_fault() {
    for fault in FAULTS {
        let database = TestDatabase::new().await;
        let id = database.mongoose_order(doc! {}).await.parse().unwrap();
        let proxy = FaultyProxy::to(&database, "findAndModify", fault).await;
        proxy.store.complete(id, &ReservationTerms::default()).await.unwrap();
        assert!(proxy.happened());
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Complete, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn an_expiry_adds_one_version_despite_any_fault() {
    for fault in FAULTS {
        let database = TestDatabase::new().await;
        let overdue = database.mongoose_order(doc! { "expiresAt": DateTime::from_millis(0) }).await;
        let proxy = FaultyProxy::to(&database, "update", fault).await;
        let now = Timestamp::now();
        let expiring = proxy.store.find_expiring(&ExpiryQuery::due(now, Duration::ZERO, 10)).await.unwrap();
        assert_eq!(expiring.due().len(), 1, "{fault:?}");
        proxy.store.expire(&expiring, now, Duration::ZERO).await.unwrap();
        assert!(proxy.happened());
        let id = overdue.parse().unwrap();
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Cancelled, 1), "{fault:?}");
    }
}

async fn status_and_version(database: &TestDatabase, id: OrderId) -> (OrderStatus, u32) {
    let order = database.store.order(id).await.unwrap().unwrap().order;
    (order.status, order.version.0)
}
