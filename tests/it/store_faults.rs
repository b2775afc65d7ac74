//! Replies that get lost: the write has happened, and the writer does not know.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc};
use orders_operator::{
    order::{OrderStatus, ReservationTerms, UserId},
    store::{ConnectOptions, Reserved, Store},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

use crate::mongo::{TestDatabase, by_way_of};

/// A way to the database on which the reply to the first `command` is lost, with its connection.
struct LossyWay {
    store: Store,
    lost: Arc<AtomicU32>,
}

impl LossyWay {
    async fn to(database: &TestDatabase, command: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (uri, behind) = by_way_of(listener.local_addr().unwrap().port());
        let lost = Arc::new(AtomicU32::new(0));
        // The name of a command is the first key of its document, and a text or a number follows.
        let (pattern, count) = ([command.as_bytes(), b"\0"].concat(), lost.clone());
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let there = TcpStream::connect(&behind).await.unwrap();
                let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
                tokio::spawn(forward(
                    from_here,
                    to_there,
                    from_there,
                    to_here,
                    pattern.clone(),
                    count.clone(),
                ));
            }
        });
        let options = ConnectOptions { database: Some(&database.name), ..ConnectOptions::new(&uri) };
        Self { store: Store::connect(options).await.unwrap(), lost }
    }
}

async fn forward(
    mut from_here: OwnedReadHalf,
    mut to_there: OwnedWriteHalf,
    mut from_there: OwnedReadHalf,
    mut to_here: OwnedWriteHalf,
    pattern: Vec<u8>,
    lost: Arc<AtomicU32>,
) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let replies = tokio::spawn(async move {
        tokio::select! {
            _ = copy(&mut from_there, &mut to_here) => None,
            Ok(()) = stopped => Some((from_there, to_here)),
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_here.read(&mut buffer).await {
        let request = &buffer[..read];
        let matches = request.windows(pattern.len()).any(|window| window == pattern);
        if matches && lost.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            // From here on no reply gets through; once the server has answered, all is cut.
            let _ = stop.send(());
            let held = replies.await.unwrap();
            to_there.write_all(request).await.unwrap();
            if let Some((mut from_there, _to_here)) = held {
                let _ = from_there.read(&mut buffer).await;
            }
            return;
        }
        if to_there.write_all(request).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_reservation_whose_reply_was_lost_is_made_once_and_known_to_be_ours() {
    let database = TestDatabase::new().await;
    let ticket = database.ticket().await;
    let way = LossyWay::to(&database, "insert").await;
    let (user, terms) = (UserId::new("u1").unwrap(), ReservationTerms::default());
    let reserved = way.store.reserve(&user, ticket, None, Timestamp::now(), &terms).await.unwrap();
    assert_eq!(way.lost.load(Ordering::SeqCst), 1);
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1);
    let Reserved::Now(reservation) = reserved else { panic!("{reserved:?}") };
    let stored = database.store.order(reservation.order.id).await.unwrap().unwrap();
    assert_eq!(stored, reservation);
}

#[tokio::test]
async fn a_cancellation_whose_reply_was_lost_makes_one_version() {
    let database = TestDatabase::new().await;
    let id = database.mongoose_order(doc! {}).await.parse().unwrap();
    let way = LossyWay::to(&database, "findAndModify").await;
    way.store.cancel(id, &UserId::new("u1").unwrap()).await.unwrap();
    assert_eq!(way.lost.load(Ordering::SeqCst), 1);
    let order = database.store.order(id).await.unwrap().unwrap().order;
    assert_eq!((order.status, order.version.0), (OrderStatus::Cancelled, 1));
}

#[tokio::test]
async fn an_expiry_whose_reply_was_lost_makes_one_version() {
    let database = TestDatabase::new().await;
    let id = database.mongoose_order(doc! { "expiresAt": DateTime::from_millis(0) }).await.parse().unwrap();
    let way = LossyWay::to(&database, "update").await;
    let batch = way.store.expire_batch(Timestamp::now(), std::time::Duration::ZERO, 10).await.unwrap();
    assert_eq!((way.lost.load(Ordering::SeqCst), batch.claimed), (1, 1));
    let order = database.store.order(id).await.unwrap().unwrap().order;
    assert_eq!((order.status, order.version.0), (OrderStatus::Cancelled, 1));
}
