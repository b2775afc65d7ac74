//! A server of the DNS for tests, which is asked over the network.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::{
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    proto::{
        op::{Message, OpCode, Query, ResponseCode},
        rr::{Name, RData, Record, RecordType, rdata::A},
    },
};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::lookup::Lookup;

/// The search list of the operator's pod.
pub(super) const OWN: [&str; 4] =
    ["orders-operator.svc.cluster.local", "svc.cluster.local", "cluster.local", "c.example.internal"];

/// What the server says of a name that it knows; that there is no other one.
#[derive(Clone, Copy)]
pub(in crate::store) enum Answer {
    /// It has this address, and none of IPv6.
    Address([u8; 4]),
    /// The same, and of IPv6 it says this.
    AddressOrCode([u8; 4], ResponseCode),
    /// It has no address, and of IPv6 the server says this.
    NoneOrCode(ResponseCode),
    /// This, in place of an answer.
    Code(ResponseCode),
    /// Nothing.
    Silence,
}

/// The server. It ends with this value.
pub(in crate::store) struct Dns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Dns {
    /// A server that knows these names.
    pub(in crate::store) async fn start(names: &[(&str, Answer)]) -> Self {
        let names: HashMap<_, _> =
            names.iter().map(|(name, answer)| (Name::from_ascii(name).unwrap(), *answer)).collect();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (socket.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let all = asked.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let Some(query) = question.queries.first() else { continue };
                all.lock().unwrap().push(query.name().to_lowercase().to_string());
                if let Some(reply) =
                    reply(question.metadata.id, query, names.get(&query.name().to_lowercase()))
                {
                    socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
                }
            }
        });
        Self { address, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// The names that were asked for.
    pub(in crate::store) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Lookups of the operator's pod, which wait for an answer for as long as it takes on a loaded machine.
    pub(in crate::store) fn lookup(&self) -> Lookup {
        self.lookup_within(Duration::from_secs(30))
    }

    /// Those that do not wait for an answer for long.
    pub(in crate::store) fn hasty_lookup(&self) -> Lookup {
        self.lookup_within(Duration::from_millis(200))
    }

    fn lookup_within(&self, timeout: Duration) -> Lookup {
        let mut server = NameServerConfig::udp(self.address.ip());
        for connection in &mut server.connections {
            connection.port = self.address.port();
        }
        let search = OWN.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        let mut options = ResolverOpts::default();
        (options.ndots, options.timeout, options.attempts) = (5, timeout, 1);
        Lookup::new(ResolverConfig::from_parts(None, search, vec![server]), options).unwrap()
    }
}

fn reply(id: u16, query: &Query, answer: Option<&Answer>) -> Option<Message> {
    let mut reply = Message::response(id, OpCode::Query);
    reply.add_query(query.clone());
    let is_v4 = query.query_type() == RecordType::A;
    let (address, code) = match answer {
        Some(Answer::Address(address)) => (Some(address), ResponseCode::NoError),
        Some(Answer::AddressOrCode(address, _)) if is_v4 => (Some(address), ResponseCode::NoError),
        Some(Answer::NoneOrCode(_)) if is_v4 => (None, ResponseCode::NoError),
        Some(Answer::AddressOrCode(_, code) | Answer::NoneOrCode(code) | Answer::Code(code)) => (None, *code),
        Some(Answer::Silence) => return None,
        None => (None, ResponseCode::NXDomain),
    };
    reply.metadata.response_code = code;
    if let Some(address) = address.filter(|_| is_v4) {
        let data = RData::A(A(Ipv4Addr::from(*address)));
        reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    }
    Some(reply)
}
