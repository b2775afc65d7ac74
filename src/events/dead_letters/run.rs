//! Lists, shows, replays and drops dead letters.

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    args::{Action, DeadLettersArgs},
    error::DeadLettersError,
};
use crate::{
    events::{
        dead_reason::DeadReason,
        wire::{PaymentCreated, PaymentStarted, Subject, TicketDeleted, TicketEvent},
    },
    order::ReservationTerms,
    runtime::Escape,
    store::{DeletedTicket, PaymentError, Settled, Store, StoreError, StoredLetter},
};

/// Does what `args` say, and prints what came of it, a line each.
///
/// # Errors
/// When the database cannot be used, or a letter is left.
pub async fn run(args: DeadLettersArgs) -> Result<(), DeadLettersError> {
    let store = args.database.connect().await?;
    let done = act(&store, args.action).await;
    store.shutdown().await;
    done
}

async fn act(store: &Store, action: Action) -> Result<(), DeadLettersError> {
    match action {
        Action::List { limit } => {
            for letter in store.dead_letters_listed(limit).await? {
                print(&heading(&letter));
            }
            Ok(())
        }
        Action::Show { id, raw } => {
            let Some(letter) = store.dead_letter(&id).await? else {
                let said = format!("{id}: there is no such letter");
                if raw {
                    warn(&said)
                } else {
                    print(&said)
                }
                return Err(DeadLettersError::Left(1));
            };
            if raw {
                return write_raw(&letter);
            }
            print(&heading(&letter));
            if letter.is_cut() {
                print(&format!("of {} bytes, the first {} are kept:", letter.size, letter.data.len()));
            }
            print(&String::from_utf8_lossy(&letter.data));
            Ok(())
        }
        Action::Drop { ids } => {
            let mut left = 0;
            for id in ids {
                let dropped = store.drop_dead_letter(&id).await?;
                print(&format!("{id}: {}", if dropped { "dropped" } else { "there is no such letter" }));
                left += usize::from(!dropped);
            }
            if left == 0 { Ok(()) } else { Err(DeadLettersError::Left(left)) }
        }
        Action::Replay { ids, with, even_refused, payment_grace_seconds } => {
            if with.is_some() && ids.len() != 1 {
                return Err(DeadLettersError::ManyWith(ids.len()));
            }
            let data = with.map(std::fs::read).transpose().map_err(DeadLettersError::File)?;
            let grace = Duration::from_secs(payment_grace_seconds.into());
            let terms = ReservationTerms { payment_grace: grace, ..ReservationTerms::default() };
            // What it changes is put in the outbox where events are on.
            store.look_for_events().await?;
            let mut left = 0;
            for id in ids {
                let outcome = replay(store, &id, data.as_deref(), even_refused, &terms).await?;
                print(&format!("{id}: {}", outcome.text));
                left += usize::from(!outcome.is_done);
            }
            if left == 0 { Ok(()) } else { Err(DeadLettersError::Left(left)) }
        }
    }
}

/// Prints a line; what others have written in it does no more than to be shown. That the reader has closed the pipe is no
/// error.
fn print(line: &str) {
    drop(writeln!(io::stdout(), "{}", Escape::Text.line(line)));
}

/// Says something where it does not get between what is printed.
fn warn(line: &str) {
    drop(writeln!(io::stderr(), "{}", Escape::Text.line(line)));
}

/// Writes what was sent as it was, for a file.
fn write_raw(letter: &StoredLetter) -> Result<(), DeadLettersError> {
    if letter.is_cut() {
        warn(&format!(
            "warning: of {} bytes, only the first {} are kept, and are what is written",
            letter.size,
            letter.data.len()
        ));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&letter.data).and_then(|()| stdout.flush()).map_err(DeadLettersError::Output)
}

/// One line about a letter.
fn heading(letter: &StoredLetter) -> String {
    let StoredLetter { id, subject, reason, detail, .. } = letter;
    let published = letter.published.map_or_else(|| "?".to_owned(), |published| published.to_string());
    format!("{id}  {published}  {subject}  {reason}: {detail}")
}

/// What has come of a letter.
struct Outcome {
    is_done: bool,
    text: String,
}

fn left(text: impl Into<String>) -> Outcome {
    Outcome { is_done: false, text: text.into() }
}

async fn replay(
    store: &Store,
    id: &str,
    data: Option<&[u8]>,
    even_refused: bool,
    terms: &ReservationTerms,
) -> Result<Outcome, StoreError> {
    let Some(letter) = store.dead_letter(id).await? else { return Ok(left("there is no such letter")) };
    if !even_refused && DeadReason::parse(&letter.reason).is_some_and(DeadReason::is_payment_refused) {
        return Ok(left(
            "its payment was refused, so the money may have been given back; --even-refused replays it all the same",
        ));
    }
    if data.is_none() && letter.is_cut() {
        return Ok(left("only its beginning is kept: give what was sent by --with"));
    }
    let outcome = handle(store, &letter, data.unwrap_or(&letter.data), terms).await?;
    if outcome.is_done {
        store.drop_dead_letter(id).await?;
    }
    Ok(outcome)
}

async fn handle(
    store: &Store,
    letter: &StoredLetter,
    data: &[u8],
    terms: &ReservationTerms,
) -> Result<Outcome, StoreError> {
    let done = |text: &str| Outcome { is_done: true, text: text.to_owned() };
    match Subject::parse(&letter.subject) {
        Some(Subject::TicketCreated | Subject::TicketUpdated) => {
            let event = match TicketEvent::parse(data) {
                Ok(event) => event,
                Err(error) => return Ok(left(error.to_string())),
            };
            let written = store.upsert_tickets_unless_deleted(&[event.ticket]).await?;
            Ok(done(if written.written > 0 {
                "the ticket is written"
            } else {
                "the stored ticket is not older"
            }))
        }
        Some(Subject::PaymentCreated) => {
            let payment = match PaymentCreated::parse(data) {
                Ok(payment) => payment,
                Err(error) => return Ok(left(error.to_string())),
            };
            let Some(published) = letter.published else {
                return Ok(left("it does not say when it was published"));
            };
            Ok(match store.settle(payment.order, &payment.id, published, terms).await? {
                Settled::Completed => done("the order is complete"),
                Settled::Repeated => done("the payment had come before"),
                Settled::Refused(refusal) => done(&format!("the payment is refused: {}", refusal.as_str())),
                Settled::OrderNotFound => left("there is no such order"),
                Settled::TooManyRefused(_) => {
                    left("too many payments were refused for this order, so its outbox takes no more")
                }
            })
        }
        Some(Subject::TicketDeleted) => {
            let TicketDeleted { id, version } = match TicketDeleted::parse(data) {
                Ok(deleted) => deleted,
                Err(error) => return Ok(left(error.to_string())),
            };
            let was_there = store.delete_ticket(&DeletedTicket { id, version }).await?;
            Ok(done(if was_there { "the ticket is deleted" } else { "the ticket was gone already" }))
        }
        Some(Subject::PaymentStarted) => {
            let order = match PaymentStarted::parse(data) {
                Ok(started) => started.order,
                Err(error) => return Ok(left(error.to_string())),
            };
            let published = letter.published.unwrap_or(Timestamp::MAX);
            match store.payment_started(order, published, terms).await {
                Ok(_) => Ok(done("the payment has begun")),
                Err(PaymentError::NotFound(_)) => Ok(left("there is no such order")),
                Err(PaymentError::TooLate(_) | PaymentError::Refused { .. }) => {
                    Ok(done("the order can no longer be paid for"))
                }
                Err(PaymentError::Store(error)) => Err(error),
            }
        }
        _ => Ok(left("its subject is not handled")),
    }
}
