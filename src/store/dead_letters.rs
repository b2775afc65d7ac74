//! What neighbours have sent and nobody can read: it is kept for a while, so that it blocks nothing and is not lost.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::{
    Collection, IndexModel,
    bson::{Binary, Document, doc, spec::BinarySubtype},
    options::IndexOptions,
};

use super::{database::Store, document::date, driver_error::is_duplicate, error::StoreError, retry};

const DEAD_LETTERS: &str = "deadLetters";

/// How long they are kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How much is kept of each, in bytes.
const MAX_DATA: usize = 1_000_000;

const KEEPING: &str = "keeping a dead letter";

/// A message that can never be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// What it is about.
    pub subject: &'a str,
    /// What was sent.
    pub data: &'a [u8],
    /// Why it cannot be read, in one word.
    pub reason: &'a str,
    /// The same in words.
    pub detail: &'a str,
    /// Where it was on the broker.
    pub stream: &'a str,
    /// Its number there.
    pub sequence: u64,
    /// When it was published, by the broker's clock.
    pub published: Timestamp,
}

impl Store {
    /// Keeps a dead letter; once, however often it is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let document = to_document(letter, self.reached().await?);
        let letters = self.dead_letters();
        retry::transient(KEEPING, || async {
            match letters.insert_one(document.clone()).await {
                Err(error) if is_duplicate(&error) => Ok(()),
                result => result.map(drop),
            }
        })
        .await
    }

    /// Makes the index by which the database deletes old dead letters.
    ///
    /// # Errors
    /// When the database fails, or does not know such indexes.
    pub async fn ensure_dead_letters(&self) -> Result<(), StoreError> {
        let options = IndexOptions::builder().name("kept_for_a_while".to_owned()).expire_after(KEPT).build();
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(options).build();
        let letters = self.dead_letters();
        retry::transient(KEEPING, || async { letters.create_index(index.clone()).await }).await.map(drop)
    }

    pub(super) fn dead_letters(&self) -> Collection<Document> {
        self.database.collection(DEAD_LETTERS)
    }
}

fn to_document(letter: &DeadLetter<'_>, at: Timestamp) -> Document {
    let data = letter.data.get(..MAX_DATA).unwrap_or(letter.data);
    let sequence = i64::try_from(letter.sequence).unwrap_or(i64::MAX);
    doc! {
        // A stream that is made anew counts from 1 again.
        "_id": format!("{}:{}:{}", letter.stream, letter.sequence, letter.published.as_millisecond()),
        "at": date(at),
        "subject": letter.subject,
        "reason": letter.reason,
        "detail": letter.detail,
        "stream": letter.stream,
        "sequence": sequence,
        "published": date(letter.published),
        "size": i64::try_from(letter.data.len()).unwrap_or(i64::MAX),
        "data": Binary { subtype: BinarySubtype::Generic, bytes: data.to_vec() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_letter_is_cut_and_its_size_is_known() {
        let data = vec![b'x'; MAX_DATA + 5];
        let letter = DeadLetter {
            subject: "ticket:created",
            data: &data,
            reason: "not-json",
            detail: "",
            stream: "s",
            sequence: 7,
            published: Timestamp::from_millisecond(3).unwrap(),
        };
        let document = to_document(&letter, Timestamp::from_millisecond(4).unwrap());
        assert_eq!(document.get_str("_id").ok(), Some("s:7:3"));
        assert_eq!(document.get_i64("size").ok(), Some(1_000_005));
        assert_eq!(document.get_binary_generic("data").unwrap().len(), MAX_DATA);
    }
}
