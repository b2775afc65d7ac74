//! Answers to what belongs to connecting, made anew: of the server's answer only the fields that are needed, once each, with
//! the type that they must have. So there is nothing that the driver could read otherwise than the guard.

use std::collections::HashSet;

use mongodb::bson::{
    Binary, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, raw::CStr, spec::BinarySubtype,
};

use super::{
    answer::{Refusal, malformed},
    command::Command,
    scram,
};
use crate::store::{answer::on_one_line, uri};

/// The most servers of a replica set that the driver hears of. It connects to each, and keeps what each says of all the
/// others. The primary is among them, and enough to learn of the next one.
const MAX_MEMBERS: usize = 16;

/// The most that a server may name: as many as a replica set has members.
const MAX_NAMED: usize = uri::MAX_HOSTS as usize;

/// The longest text of a field, in bytes.
const MAX_TEXT: usize = 259;

/// The longest message of a login, in bytes.
const MAX_PAYLOAD: usize = 2048;

/// The most texts of a list that names no servers.
const MAX_TEXTS: usize = 16;

/// What a field has.
#[derive(Clone, Copy)]
enum Kind {
    Flag,
    Number,
    Text,
    Texts,
    ObjectId,
    Date,
    /// What went wrong, in the server's words.
    Words,
    Host,
    Hosts,
    LastWrite,
    Payload,
    /// The answer to the beginning of a login that came with the greeting.
    Login,
}

const OF_ANY: [(&str, Kind); 5] = [
    ("ok", Kind::Number),
    ("code", Kind::Number),
    ("codeName", Kind::Text),
    ("errmsg", Kind::Words),
    ("errorLabels", Kind::Texts),
];

const OF_HELLO: [(&str, Kind); 25] = [
    // By which the sweeper knows the database's time; the rest is for the driver.
    ("localTime", Kind::Date),
    ("isWritablePrimary", Kind::Flag),
    ("ismaster", Kind::Flag),
    ("helloOk", Kind::Flag),
    ("msg", Kind::Text),
    ("me", Kind::Host),
    ("primary", Kind::Host),
    ("hosts", Kind::Hosts),
    ("setName", Kind::Text),
    ("setVersion", Kind::Number),
    ("electionId", Kind::ObjectId),
    ("secondary", Kind::Flag),
    ("hidden", Kind::Flag),
    ("arbiterOnly", Kind::Flag),
    ("isreplicaset", Kind::Flag),
    ("lastWrite", Kind::LastWrite),
    ("logicalSessionTimeoutMinutes", Kind::Number),
    ("minWireVersion", Kind::Number),
    ("maxWireVersion", Kind::Number),
    ("maxBsonObjectSize", Kind::Number),
    ("maxMessageSizeBytes", Kind::Number),
    ("maxWriteBatchSize", Kind::Number),
    ("connectionId", Kind::Number),
    ("saslSupportedMechs", Kind::Texts),
    ("speculativeAuthenticate", Kind::Login),
];

const OF_LOGIN: [(&str, Kind); 3] =
    [("conversationId", Kind::Number), ("done", Kind::Flag), ("payload", Kind::Payload)];

/// An answer, made anew.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) document: RawDocumentBuf,
    /// The other servers that it names.
    pub(super) hosts: Vec<String>,
    /// Salt and rounds of a login, if it names them.
    pub(super) salt: Option<String>,
    /// Whether the request has begun a login.
    begins_login: bool,
}

impl Greeting {
    /// Makes the answer to a command anew, which may have begun a login.
    pub(super) fn of(command: Command, begins_login: bool, answer: &RawDocument) -> Result<Self, Refusal> {
        let mut greeting =
            Self { document: RawDocumentBuf::new(), hosts: Vec::new(), salt: None, begins_login };
        let fields = if command == Command::Login { OF_LOGIN.as_slice() } else { OF_HELLO.as_slice() };
        greeting.document = greeting.rebuilt(answer, fields)?;
        Ok(greeting)
    }

    fn rebuilt(
        &mut self,
        answer: &RawDocument,
        fields: &[(&'static str, Kind)],
    ) -> Result<RawDocumentBuf, Refusal> {
        let (mut document, mut seen) = (RawDocumentBuf::new(), HashSet::new());
        let mut members = Members::default();
        for element in answer {
            let (name, value) = element.map_err(malformed)?;
            let known = fields.iter().chain(&OF_ANY).find(|(known, _)| *known == name.as_str());
            let Some((known, kind)) = known else { continue };
            if !seen.insert(*known) {
                return Err(Refusal::new(format_args!("it has the field {known} twice")));
            }
            if value == RawBsonRef::Null {
                continue;
            }
            let wrong = || Refusal::new(format_args!("its field {known} is not one that a database has"));
            match kind {
                Kind::Hosts => members.named = hosts(value).ok_or_else(wrong)?,
                // The driver has no use for one that it has not asked for.
                Kind::Login if !self.begins_login => {}
                Kind::Login => {
                    let login = value.as_document().ok_or_else(wrong)?;
                    let login = self.rebuilt(login, &OF_LOGIN)?;
                    append(&mut document, name, login);
                }
                _ => {
                    let value = self.admitted(*kind, value)?.ok_or_else(wrong)?;
                    if let (Kind::Host, RawBson::String(host)) = (kind, &value) {
                        members.first.push(host.clone());
                    }
                    append(&mut document, name, value);
                }
            }
        }
        if !members.named.is_empty() {
            self.hosts = members.kept();
            let mut list = RawArrayBuf::new();
            self.hosts.iter().for_each(|host| list.push(host.as_str()));
            append(&mut document, HOSTS, list);
        }
        Ok(document)
    }

    /// A value of this kind; none if it is of another.
    fn admitted(&mut self, kind: Kind, value: RawBsonRef<'_>) -> Result<Option<RawBson>, Refusal> {
        Ok(match (kind, value) {
            (Kind::Flag, RawBsonRef::Boolean(flag)) => Some(flag.into()),
            (Kind::Number, RawBsonRef::Boolean(flag)) => Some(i32::from(flag).into()),
            (Kind::Number, RawBsonRef::Int32(number)) => Some(number.into()),
            (Kind::Number, RawBsonRef::Int64(number)) => Some(number.into()),
            (Kind::Number, RawBsonRef::Double(number)) => Some(number.into()),
            (Kind::Date, RawBsonRef::DateTime(date)) => Some(date.into()),
            (Kind::ObjectId, RawBsonRef::ObjectId(id)) => Some(id.into()),
            (Kind::Text, RawBsonRef::String(text)) if text.len() <= MAX_TEXT => Some(text.to_owned().into()),
            (Kind::Host, RawBsonRef::String(text)) => host(text).map(RawBson::from),
            (Kind::Words, RawBsonRef::String(text)) => Some(on_one_line(text).into()),
            (Kind::Texts, RawBsonRef::Array(texts)) => {
                let mut list = RawArrayBuf::new();
                for text in texts.into_iter().take(MAX_TEXTS) {
                    match text.map_err(malformed)? {
                        RawBsonRef::String(text) if text.len() <= MAX_TEXT => list.push(text),
                        _ => return Ok(None),
                    }
                }
                Some(list.into())
            }
            (Kind::LastWrite, RawBsonRef::Document(write)) => {
                let mut document = RawDocumentBuf::new();
                if let Ok(date) = write.get_datetime("lastWriteDate") {
                    append(&mut document, LAST_WRITE_DATE, date);
                }
                Some(document.into())
            }
            (Kind::Payload, RawBsonRef::Binary(payload)) => self
                .checked_payload(payload.bytes)?
                .map(|bytes| RawBson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })),
            _ => None,
        })
    }

    fn checked_payload(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        if let Some(salt) = scram::check(payload).map_err(Refusal::login)? {
            if !self.begins_login {
                return Err(Refusal::login("it names a salt where no login begins"));
            }
            self.salt = Some(salt);
        }
        Ok((payload.len() <= MAX_PAYLOAD).then(|| payload.to_vec()))
    }
}

const HOSTS: &CStr = mongodb::bson::raw::cstr!("hosts");
const LAST_WRITE_DATE: &CStr = mongodb::bson::raw::cstr!("lastWriteDate");

fn append(document: &mut RawDocumentBuf, name: &CStr, value: impl Into<RawBson>) {
    document.append(name, value.into());
}

/// The members of a replica set.
#[derive(Default)]
struct Members {
    /// The server itself, and the primary.
    first: Vec<String>,
    named: Vec<String>,
}

impl Members {
    /// The first, if they are named, and as many of the others as there is room for.
    fn kept(mut self) -> Vec<String> {
        let first = self.first;
        self.named.sort_by_key(|host| !first.contains(host));
        self.named.truncate(MAX_MEMBERS);
        self.named
    }
}

/// A server of the network. The driver takes some other texts for Unix sockets.
fn host(text: &str) -> Option<String> {
    (text.len() <= MAX_TEXT && uri::address(text).is_ok()).then(|| text.to_owned())
}

fn hosts(value: RawBsonRef<'_>) -> Option<Vec<String>> {
    let RawBsonRef::Array(hosts) = value else { return None };
    let mut named = Vec::new();
    for each in hosts {
        let Ok(RawBsonRef::String(text)) = each else { return None };
        named.push(host(text)?);
        if named.len() > MAX_NAMED {
            return None;
        }
    }
    Some(named)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId, serialize_to_raw_document_buf};
    use proptest::prelude::*;

    use super::*;

    /// A first message of a server's.
    const FIRST: &str = "r=nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn,s=c2FsdA==,i=15000";

    fn made(command: Command, answer: &Document) -> Result<(Document, Greeting), Refusal> {
        let answer = serialize_to_raw_document_buf(answer).unwrap();
        let greeting = Greeting::of(command, true, &answer)?;
        Ok((Document::try_from(greeting.document.as_ref()).unwrap(), greeting))
    }

    fn binary(text: &str) -> Bson {
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: text.into() })
    }

    #[test]
    fn of_a_greeting_the_fields_that_are_needed_are_left() {
        let needed = doc! {
            "isWritablePrimary": true, "helloOk": true, "me": "a.example:27017", "primary": "a.example:27017", "setName": "rs",
            "setVersion": 3, "electionId": ObjectId::from_bytes([1; 12]), "secondary": false,
            "lastWrite": { "lastWriteDate": DateTime::from_millis(5) }, "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0, "maxWireVersion": 21, "maxBsonObjectSize": 16_777_216, "connectionId": 7_i64,
            "saslSupportedMechs": ["SCRAM-SHA-256"], "localTime": DateTime::from_millis(7), "ok": 1.0,
        };
        let mut answer = needed.clone();
        answer.extend(doc! {
            "tags": { "a": "x".repeat(1000) }, "$clusterTime": { "a": 1 }, "topologyVersion": { "counter": 1_i64 }, "x": 1,
            "compression": ["snappy"], "arbiters": ["c:1"], "passives": ["d:1"],
            "hidden": Bson::Null, "hosts": ["b.example:1", "a.example:27017", "[::1]:5"],
        });
        answer.get_document_mut("lastWrite").unwrap().insert("opTime", "x");
        let (made, greeting) = made(Command::Hello, &answer).unwrap();
        let mut wanted = needed;
        wanted.insert("hosts", vec!["a.example:27017", "b.example:1", "[::1]:5"]);
        assert_eq!(made, wanted);
        assert_eq!(greeting.hosts, ["a.example:27017", "b.example:1", "[::1]:5"]);
        assert_eq!(greeting.salt, None);
    }

    #[test]
    fn of_many_members_the_primary_is_kept() {
        let hosts: Vec<_> = (0..40).map(|number| format!("h{number}:1")).collect();
        let answer = doc! { "hosts": hosts, "primary": "h33:1", "me": "h20:1" };
        let (_, greeting) = made(Command::Hello, &answer).unwrap();
        assert_eq!(greeting.hosts.len(), MAX_MEMBERS);
        assert!(["h33:1", "h20:1", "h0:1"].iter().all(|host| greeting.hosts.contains(&(*host).to_owned())));
    }

    #[test]
    fn of_a_login_the_conversation_is_left_and_an_error_is_cut() {
        let payload = || binary(FIRST);
        let answer = doc! { "conversationId": 1, "done": false, "payload": payload(), "hosts": ["/tmp/x.sock"], "ok": 1 };
        let wanted = doc! { "conversationId": 1, "done": false, "payload": payload(), "ok": 1 };
        let (made_anew, greeting) = made(Command::Login, &answer).unwrap();
        assert_eq!((made_anew, greeting.salt.as_deref()), (wanted.clone(), Some("c2FsdA==,15000")));
        let (_, greeting) = made(Command::Hello, &doc! { "speculativeAuthenticate": wanted }).unwrap();
        assert_eq!(greeting.salt.as_deref(), Some("c2FsdA==,15000"));
        let last = doc! { "done": true, "payload": binary("v=x"), "ok": 1 };
        let (made_anew, greeting) = made(Command::Login, &last).unwrap();
        assert_eq!((made_anew, greeting.salt), (last, None));
        let failed =
            doc! { "ok": 0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "n\no".repeat(9000) };
        let (failed, _) = made(Command::Login, &failed).unwrap();
        assert!(failed.get_str("errmsg").unwrap().len() < 2000 && failed.get_i32("code").unwrap() == 18);
    }

    #[test]
    fn a_login_that_nobody_has_begun_is_left_out_and_a_salt_in_the_middle_of_one_is_refused() {
        let unasked = |command, answer: &Document| {
            let answer = serialize_to_raw_document_buf(answer).unwrap();
            let greeting = Greeting::of(command, false, &answer)?;
            Ok::<_, Refusal>((Document::try_from(greeting.document.as_ref()).unwrap(), greeting.salt))
        };
        let hello = doc! { "ok": 1, "speculativeAuthenticate": { "payload": binary(FIRST), "done": true } };
        assert_eq!(unasked(Command::Hello, &hello).unwrap(), (doc! { "ok": 1 }, None));
        let goes_on = doc! { "payload": binary("v=x"), "done": true, "ok": 1 };
        assert_eq!(unasked(Command::Login, &goes_on).unwrap(), (goes_on, None));
        let refused = unasked(Command::Login, &doc! { "payload": binary(FIRST) }).unwrap_err();
        assert!(refused.message.contains("no login begins"), "{refused:?}");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let hostile = || binary(&FIRST.replace("15000", "2147483647"));
        for (command, answer) in [
            (Command::Login, doc! { "payload": hostile() }),
            (Command::Hello, doc! { "speculativeAuthenticate": { "payload": hostile() } }),
            (Command::Login, doc! { "payload": "r=x,s=c2FsdA==,i=1" }),
            (Command::Login, doc! { "payload": binary(&"x".repeat(3000)) }),
            (Command::Hello, doc! { "hosts": ["/tmp/x.sock"] }),
            (Command::Hello, doc! { "hosts": ["%2Ftmp%2Fx.sock"] }),
            (Command::Hello, doc! { "hosts": ["a:1", 7] }),
            (Command::Hello, doc! { "hosts": { "0": "a:1" } }),
            (Command::Hello, doc! { "hosts": vec!["a:1"; 51] }),
            (Command::Hello, doc! { "primary": "x.sock" }),
            (Command::Hello, doc! { "me": "a".repeat(300) }),
            (Command::Hello, doc! { "setName": "x".repeat(300) }),
            (Command::Hello, doc! { "ismaster": "yes" }),
        ] {
            assert!(made(command, &answer).is_err(), "{answer}");
        }
        let mut twice = RawDocumentBuf::new();
        for rounds in ["1", "2147483647"] {
            let bytes = FIRST.replace("15000", rounds).into_bytes();
            let name = mongodb::bson::raw::cstr!("payload");
            append(&mut twice, name, RawBson::Binary(Binary { subtype: BinarySubtype::Generic, bytes }));
        }
        let refused = Greeting::of(Command::Login, true, &twice).unwrap_err();
        assert!(refused.message.contains("payload twice"), "{refused:?}");
    }

    proptest! {
        #[test]
        fn what_is_made_anew_is_small_and_has_each_field_once(
            at in 0_usize..300, byte in any::<u8>(), size in 0_usize..300, hosts in 0_usize..51,
        ) {
            let answer = doc! { "ok": 1, "setName": "x".repeat(size), "hosts": vec!["host.example:27017"; hosts],
                                "speculativeAuthenticate": { "payload": binary(FIRST) }, "me": "host.example:27017" };
            let mut bytes = mongodb::bson::serialize_to_vec(&answer).unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            if let Ok(document) = RawDocument::from_bytes(&bytes)
                && let Ok(greeting) = Greeting::of(Command::Hello, true, document)
            {
                let document = greeting.document;
                prop_assert!(document.as_bytes().len() < 8192);
                let names: Vec<_> = document.iter().map(|element| element.unwrap().0.as_str()).collect();
                let once: HashSet<_> = names.iter().collect();
                prop_assert_eq!(names.len(), once.len());
                prop_assert!(Document::try_from(document.as_ref()).is_ok());
            }
        }
    }
}
