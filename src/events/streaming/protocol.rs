//! The messages of NATS Streaming, protocol 1, as far as this client has a use for their fields. What is not named here
//! is left out when a message is written, and ignored when it is read.

use prost::Message;

/// The protocol with connection ids and pings.
pub(super) const PROTOCOL: i32 = 1;

/// Asks to be a client of the server.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectRequest {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    /// Where the server asks whether the client is there.
    #[prost(string, tag = "2")]
    pub(super) heartbeat_inbox: String,
    #[prost(int32, tag = "3")]
    pub(super) protocol: i32,
    /// No two connections have the same.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) connection_id: Vec<u8>,
    /// In seconds.
    #[prost(int32, tag = "5")]
    pub(super) ping_interval: i32,
    #[prost(int32, tag = "6")]
    pub(super) ping_max_out: i32,
}

/// The subjects for everything else.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectResponse {
    #[prost(string, tag = "1")]
    pub(super) publish_prefix: String,
    #[prost(string, tag = "2")]
    pub(super) subscribe: String,
    #[prost(string, tag = "4")]
    pub(super) close: String,
    #[prost(string, tag = "5")]
    pub(super) error: String,
    #[prost(string, tag = "6")]
    pub(super) close_subscription: String,
    /// None in servers before protocol 1.
    #[prost(string, tag = "7")]
    pub(super) ping: String,
}

/// Asks whether the server still knows a connection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ping {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) connection_id: Vec<u8>,
}

/// What the server answers to a ping, and to a request to close a connection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(string, tag = "1")]
    pub(super) error: String,
}

/// A message for a channel.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Publish {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    /// Comes back with the acknowledgement.
    #[prost(string, tag = "2")]
    pub(super) guid: String,
    #[prost(string, tag = "3")]
    pub(super) channel: String,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) data: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) connection_id: Vec<u8>,
}

/// That the server keeps a message.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Published {
    #[prost(string, tag = "1")]
    pub(super) guid: String,
    #[prost(string, tag = "2")]
    pub(super) error: String,
}

/// Where a new subscription begins. One that is durable and known goes on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Start {
    /// With what is published from now on.
    New = 0,
    /// With the last message that the channel has.
    Last = 1,
    /// With what was published after a time.
    Ago = 2,
    /// With the first message that the channel has.
    First = 4,
}

/// Asks for the messages of a channel.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Subscribe {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(string, tag = "2")]
    pub(super) channel: String,
    /// Those with the same name share the messages.
    #[prost(string, tag = "3")]
    pub(super) queue: String,
    /// Where they are to be sent.
    #[prost(string, tag = "4")]
    pub(super) inbox: String,
    /// The most messages that wait for their acknowledgement.
    #[prost(int32, tag = "5")]
    pub(super) max_in_flight: i32,
    #[prost(int32, tag = "6")]
    pub(super) ack_wait_seconds: i32,
    #[prost(string, tag = "7")]
    pub(super) durable: String,
    #[prost(enumeration = "Start", tag = "10")]
    pub(super) start: i32,
    /// How long ago, in nanoseconds.
    #[prost(int64, tag = "12")]
    pub(super) start_ago: i64,
}

/// Where messages of the subscription are acknowledged.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Subscribed {
    #[prost(string, tag = "2")]
    pub(super) ack_inbox: String,
    #[prost(string, tag = "3")]
    pub(super) error: String,
}

/// Ends a subscription; one that is durable can go on later.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSubscription {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
    #[prost(string, tag = "2")]
    pub(super) channel: String,
    #[prost(string, tag = "3")]
    pub(super) ack_inbox: String,
}

/// A message of a channel.
#[derive(Clone, PartialEq, Message)]
pub(in crate::events) struct Delivered {
    /// Counts the messages of the channel, from 1 on.
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
    #[prost(string, tag = "2")]
    pub(super) channel: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) data: Vec<u8>,
    /// When the server has received it, in nanoseconds since 1970.
    #[prost(int64, tag = "5")]
    pub(super) published: i64,
    /// How often the server has delivered it again.
    #[prost(uint32, tag = "7")]
    pub(super) redeliveries: u32,
}

/// A message is done with.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ack {
    #[prost(string, tag = "1")]
    pub(super) channel: String,
    #[prost(uint64, tag = "2")]
    pub(super) sequence: u64,
}

/// Ends a connection.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Close {
    #[prost(string, tag = "1")]
    pub(super) client_id: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As other clients write them: a field is its tag and kind in one byte, and then its value.
    #[test]
    fn messages_have_the_bytes_that_others_read_and_write() {
        let ack = Ack { channel: "a:b".into(), sequence: 300 };
        assert_eq!(ack.encode_to_vec(), b"\x0a\x03a:b\x10\xac\x02");
        let subscribe = Subscribe {
            client_id: "c".into(),
            channel: "a:b".into(),
            queue: "q".into(),
            inbox: "i".into(),
            max_in_flight: 200,
            ack_wait_seconds: 10,
            durable: "d".into(),
            start: Start::First.into(),
            start_ago: 0,
        };
        assert_eq!(
            subscribe.encode_to_vec(),
            b"\x0a\x01c\x12\x03a:b\x1a\x01q\x22\x01i\x28\xc8\x01\x30\x0a\x3a\x01d\x50\x04"
        );
        // With a reply and a checksum, which are not read.
        let sent = b"\x08\x07\x12\x01s\x1a\x01r\x22\x02{}\x28\x01\x30\x01\x38\x02\x50\x09";
        let wanted =
            Delivered { sequence: 7, channel: "s".into(), data: b"{}".into(), published: 1, redeliveries: 2 };
        assert_eq!(Delivered::decode(&sent[..]), Ok(wanted));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(ConnectResponse::decode(&bytes[..]));
            drop(Subscribed::decode(&bytes[..]));
            drop(Published::decode(&bytes[..]));
            drop(Delivered::decode(&bytes[..]));
        }
    }
}
