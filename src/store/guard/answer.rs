//! What an answer may be: one plain document, of bounded size, depth and number of elements.

use mongodb::bson::{RawArray, RawBsonRef, RawDocument, error::Error as BsonError};

use super::command::Command;
use crate::store::code;

/// The bytes of a message's header: its length, its id, the id of the request, and the opcode.
pub(super) const HEADER: usize = 16;

/// The largest answer. The largest to what the sweeper asks for has some 800 kB: 10,000 orders.
const MAX_MESSAGE: usize = 2 << 20;

/// The largest answer to a command that belongs to connecting.
const MAX_GREETING: usize = 16 << 10;

/// The largest cluster time, which the driver keeps, and sends with every command. It has a signature.
const MAX_CLUSTER_TIME: usize = 1024;

/// The opcode of OP_MSG, the only one that servers since MongoDB 3.6 need.
pub(super) const OP_MSG: i32 = 2013;

/// The flag of a message that ends with a checksum. No other flag is for answers that were not asked for in parts.
const CHECKSUM_PRESENT: u32 = 1;

const CHECKSUM: usize = 4;

/// The flags, and the kind of the section.
const BEFORE_DOCUMENT: usize = 5;

/// How deep documents may be nested. MongoDB's own bound is 100, for what it stores; the deepest answers that are asked
/// for have 4 levels.
const MAX_DEPTH: usize = 32;

/// The most elements of all documents together; the driver takes some 150 bytes for each. 10,000 orders have 40,000.
const MAX_ELEMENTS: usize = 65_536;

/// Why an answer is not passed on, as what the driver gets in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code of an error of the server.
    pub(super) code: i32,
    /// What is wrong with the answer.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(message: impl std::fmt::Display) -> Self {
        Self {
            code: code::INVALID_BSON,
            message: format!("the answer of the server is not passed on: {message}"),
        }
    }

    pub(super) fn login(message: impl std::fmt::Display) -> Self {
        Self {
            code: code::AUTHENTICATION_FAILED,
            message: format!("the server's login is refused: {message}"),
        }
    }
}

/// The largest answer to a command.
pub(super) fn limit(command: Command) -> usize {
    match command {
        Command::Hello | Command::Login => MAX_GREETING,
        Command::Brief | Command::Other => MAX_MESSAGE,
    }
}

/// The length of a message, from its header.
pub(super) fn length(header: &[u8; HEADER], limit: usize) -> Result<usize, Refusal> {
    let (length, opcode) = (i32_at(header, 0), i32_at(header, 12));
    if opcode != Some(OP_MSG) {
        return Err(Refusal::new("it is not an OP_MSG; a database of MongoDB 3.6 or newer is needed"));
    }
    let claimed = length.unwrap_or_default();
    match usize::try_from(claimed) {
        Ok(length) if (HEADER + BEFORE_DOCUMENT..=limit).contains(&length) => Ok(length),
        _ => Err(Refusal::new(format_args!("its length is {claimed} bytes; at most {limit} are allowed"))),
    }
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_le_bytes)
}

/// Checks what follows the header, and returns its document.
pub(super) fn check(body: &[u8]) -> Result<&RawDocument, Refusal> {
    let document = document(body)?;
    check_structure(document)?;
    for element in document {
        let (name, value) = element.map_err(malformed)?;
        let is_large = || value.as_document().is_none_or(|time| time.as_bytes().len() > MAX_CLUSTER_TIME);
        if name.as_str() == "$clusterTime" && is_large() {
            return Err(Refusal::new(format_args!(
                "its $clusterTime has more than {MAX_CLUSTER_TIME} bytes"
            )));
        }
    }
    Ok(document)
}

/// The document of a message that has nothing else.
fn document(body: &[u8]) -> Result<&RawDocument, Refusal> {
    let flags = i32_at(body, 0).map_or(u32::MAX, i32::cast_unsigned);
    if flags & !CHECKSUM_PRESENT != 0 {
        return Err(Refusal::new(format_args!("its flags are {flags:#x}")));
    }
    let checksum = if flags & CHECKSUM_PRESENT == 0 { 0 } else { CHECKSUM };
    let end = body.len().saturating_sub(checksum);
    match (body.get(4), body.get(BEFORE_DOCUMENT..end)) {
        (Some(0), Some(document)) => RawDocument::from_bytes(document).map_err(malformed),
        _ => Err(Refusal::new("it has something else than one document")),
    }
}

pub(super) fn malformed(error: BsonError) -> Refusal {
    Refusal::new(format_args!("it is not BSON: {error}"))
}

/// A document or an array, which differ in how they are iterated over.
enum Nested<'a> {
    Document(&'a RawDocument),
    Array(&'a RawArray),
}

impl<'a> Nested<'a> {
    fn values(self) -> Box<dyn Iterator<Item = Result<RawBsonRef<'a>, BsonError>> + 'a> {
        match self {
            Self::Document(document) => {
                Box::new(document.iter().map(|element| element.map(|(_, value)| value)))
            }
            Self::Array(array) => Box::new(array.into_iter()),
        }
    }
}

/// Checks depth and number of all that is nested, without recursion.
fn check_structure(document: &RawDocument) -> Result<(), Refusal> {
    let (mut pending, mut elements) = (vec![(Nested::Document(document), 1)], 0);
    while let Some((nested, depth)) = pending.pop() {
        if depth > MAX_DEPTH {
            return Err(Refusal::new(format_args!("its documents are nested more than {MAX_DEPTH} deep")));
        }
        for value in nested.values() {
            elements += 1;
            if elements > MAX_ELEMENTS {
                return Err(Refusal::new(format_args!("it has more than {MAX_ELEMENTS} elements")));
            }
            match value.map_err(malformed)? {
                RawBsonRef::Document(document) => pending.push((Nested::Document(document), depth + 1)),
                RawBsonRef::Array(array) => pending.push((Nested::Array(array), depth + 1)),
                // Another document, in a type that no database has needed for years.
                RawBsonRef::JavaScriptCodeWithScope(_) => {
                    return Err(Refusal::new("it has code with a scope"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, JavaScriptCodeWithScope, doc, serialize_to_vec};
    use proptest::prelude::*;

    use super::*;

    fn body(flags: u32, document: &Document) -> Vec<u8> {
        let mut body = flags.to_le_bytes().to_vec();
        body.push(0);
        body.extend(serialize_to_vec(document).unwrap());
        body
    }

    fn checked(document: &Document) -> Result<(), String> {
        check(&body(0, document)).map(drop).map_err(|refusal| refusal.message)
    }

    fn nested(depth: usize) -> Document {
        (1..depth).fold(doc! {}, |inner, number| match number % 2 {
            0 => doc! { "a": inner },
            _ => doc! { "a": [inner] },
        })
    }

    /// The same as bytes, for depths at which the library would overflow the stack.
    fn nested_bytes(depth: usize) -> Vec<u8> {
        let document = (1..depth).fold(vec![5, 0, 0, 0, 0], |inner, _| {
            let length = i32::try_from(inner.len() + 8).unwrap().to_le_bytes();
            [&length[..], b"\x03a\0", &inner, &[0]].concat()
        });
        [&[0; 5][..], &document].concat()
    }

    fn header(length: i32, opcode: i32) -> [u8; HEADER] {
        let words = [length, 1, 2, opcode].map(i32::to_le_bytes);
        words.concat().try_into().unwrap()
    }

    #[test]
    fn what_databases_answer_is_passed_on() {
        let order = doc! { "_id": Bson::ObjectId(Default::default()), "expiresAt": Bson::DateTime(mongodb::bson::DateTime::now()), "status": "created" };
        for answer in [
            doc! {},
            doc! { "ok": 1.0, "$clusterTime": { "clusterTime": 1, "signature": "x".repeat(200) } },
            doc! { "ok": 1.0, "cursor": { "id": 0_i64, "ns": "orders.orders", "firstBatch": vec![order; 10_000] } },
            nested(16),
        ] {
            assert_eq!(checked(&answer), Ok(()));
        }
        let mut with_checksum = body(CHECKSUM_PRESENT, &doc! { "ok": 1 });
        with_checksum.extend([1, 2, 3, 4]);
        assert!(check(&with_checksum).is_ok());
        for bytes in [21, 1000] {
            assert_eq!(length(&header(bytes, OP_MSG), 1000), Ok(bytes as usize));
        }
        assert!(
            limit(Command::Hello) < limit(Command::Other) && limit(Command::Login) < limit(Command::Brief)
        );
    }

    #[test]
    fn what_none_answers_is_refused_and_named() {
        let mut many = Document::new();
        (0..=MAX_ELEMENTS).for_each(|number| drop(many.insert(number.to_string(), Bson::Null)));
        let scope = JavaScriptCodeWithScope { code: "x".into(), scope: nested(40) };
        for (answer, why) in [
            (nested(17 + MAX_DEPTH), "nested more than 32 deep"),
            (doc! { "a": many.clone() }, "more than 65536 elements"),
            (doc! { "a": vec![Bson::Null; MAX_ELEMENTS] }, "more than 65536 elements"),
            (doc! { "a": Bson::JavaScriptCodeWithScope(scope) }, "code with a scope"),
            (doc! { "$clusterTime": { "a": "x".repeat(2000) } }, "$clusterTime has more than"),
            (doc! { "$clusterTime": "x".repeat(2000) }, "$clusterTime has more than"),
        ] {
            let refused = checked(&answer).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        for depth in [MAX_DEPTH + 1, 1000, 100_000] {
            let refused = check(&nested_bytes(depth)).unwrap_err();
            assert!(refused.message.contains("nested more than 32 deep"), "{refused:?}");
        }
        assert!(check(&nested_bytes(MAX_DEPTH)).is_ok());
        let answer = body(0, &doc! { "ok": 1 });
        let with = |at: usize, byte: u8| {
            let mut other = answer.clone();
            other[at] = byte;
            other
        };
        let mut longer = answer.clone();
        longer.extend([0; 4]);
        for wrong in [
            with(0, 2),
            with(2, 1),
            with(4, 1),
            with(5, 200),
            with(9, 0x99),
            longer,
            answer[..12].to_vec(),
            answer[..3].to_vec(),
            Vec::new(),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
        for (bytes, opcode) in
            [(20, OP_MSG), (-1, OP_MSG), (1001, OP_MSG), (i32::MAX, OP_MSG), (36, 1), (36, 2012)]
        {
            assert!(length(&header(bytes, opcode), 1000).is_err(), "{bytes} {opcode}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_passes_is_parsed_by_the_driver_s_library(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200, at in 0_usize..200, byte in any::<u8>(),
        ) {
            drop(check(&bytes));
            let mut answer = body(0, &doc! { "a": [1, "text", { "b": nested(4) }], "hosts": ["h"], "payload": "r=1,s=2,i=3" });
            let length = answer.len();
            answer[at % length] = byte;
            answer.truncate(length.saturating_sub(cut % 3));
            if check(&answer).is_ok() {
                let parsed = Document::from_reader(&answer[BEFORE_DOCUMENT..]);
                prop_assert!(parsed.is_ok(), "{parsed:?}");
            }
        }
    }
}
