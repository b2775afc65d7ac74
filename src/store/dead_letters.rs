//! What other services have sent and cannot be read: it is kept for a while, so that it blocks nothing and is not lost.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::{
    Collection, IndexModel,
    bson::{Binary, Document, doc, spec::BinarySubtype},
    options::IndexOptions,
};

use super::{
    answer::at_most,
    database::Store,
    document::{date, timestamp},
    driver_error::is_duplicate,
    error::StoreError,
    retry,
};

const DEAD_LETTERS: &str = "deadLetters";

/// How long they are kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// How much is kept of each, in bytes.
const MAX_DATA: usize = 1_000_000;

const KEEPING: &str = "keeping a dead letter";
const READING: &str = "reading dead letters";
const DROPPING: &str = "dropping a dead letter";

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

/// A dead letter, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// Its id.
    pub id: String,
    /// What it is about.
    pub subject: String,
    /// Why it could not be read, in one word.
    pub reason: String,
    /// The same in words.
    pub detail: String,
    /// When it was published, by the broker's clock.
    pub published: Option<Timestamp>,
    /// How many bytes were sent.
    pub size: usize,
    /// What was sent, or its beginning; nothing in a list.
    pub data: Vec<u8>,
}

impl StoredLetter {
    /// Whether only the beginning is kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.data.len() < self.size
    }
}

impl Store {
    /// Keeps a dead letter; once, however often it is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let mut document = to_document(letter, self.reached().await?);
        let letters = self.dead_letters();
        let filter = doc! { "_id": document.remove("_id") };
        // An insert that is refused since the letter is there would not say whether a majority has it.
        let update = doc! { "$setOnInsert": document };
        let keep = || async { letters.update_one(filter.clone(), update.clone()).upsert(true).await };
        retry::transient(KEEPING, || async {
            match keep().await {
                // Another process has kept it at the same time.
                Err(error) if is_duplicate(&error) => keep().await,
                result => result,
            }
        })
        .await
        .map(drop)
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

    /// The newest dead letters, without what was sent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead_letters_listed(&self, limit: u32) -> Result<Vec<StoredLetter>, StoreError> {
        let letters = self.dead_letters();
        let found = retry::transient(READING, || async {
            let find = letters.find(doc! {}).projection(doc! { "data": 0 }).sort(doc! { "at": -1 });
            at_most(limit, find.limit(i64::from(limit)).batch_size(limit.min(1000)).await?).await
        })
        .await?;
        Ok(found.iter().filter_map(to_letter).collect())
    }

    /// One dead letter.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead_letter(&self, id: &str) -> Result<Option<StoredLetter>, StoreError> {
        let letters = self.dead_letters();
        let found =
            retry::transient(READING, || async { letters.find_one(doc! { "_id": id }).await }).await?;
        Ok(found.as_ref().and_then(to_letter))
    }

    /// Drops a dead letter. Whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_dead_letter(&self, id: &str) -> Result<bool, StoreError> {
        let letters = self.dead_letters();
        let dropped =
            retry::transient(DROPPING, || async { letters.delete_one(doc! { "_id": id }).await }).await?;
        Ok(dropped.deleted_count > 0)
    }

    pub(super) fn dead_letters(&self) -> Collection<Document> {
        self.database.collection(DEAD_LETTERS)
    }
}

/// None for a document that is no letter.
fn to_letter(document: &Document) -> Option<StoredLetter> {
    let text = |field: &str| document.get_str(field).unwrap_or_default().to_owned();
    let size = document.get_i64("size").ok().and_then(|size| usize::try_from(size).ok());
    Some(StoredLetter {
        id: document.get_str("_id").ok()?.to_owned(),
        subject: text("subject"),
        reason: text("reason"),
        detail: text("detail"),
        published: document.get_datetime("published").ok().and_then(|at| timestamp(*at)),
        size: size.unwrap_or_default(),
        data: document.get_binary_generic("data").cloned().unwrap_or_default(),
    })
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
