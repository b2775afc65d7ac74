//! What a server may ask for in a login with SCRAM, where it names the rounds and the salt before it has proved anything.
//!
//! The driver has no bound for either: it would hash for an hour, and hold a lock that every other login of the process
//! waits for. And it remembers each salt that it has hashed.

/// The most rounds. MongoDB's defaults are 10,000 for SCRAM-SHA-1 and 15,000 for SCRAM-SHA-256; these many take some 50 ms.
pub(super) const MAX_ROUNDS: u32 = 100_000;

/// How the message begins that names the salt: with the client's nonce, which has 32 bytes in base64, and the server's. The
/// driver takes the client's part of it by its length, whatever it is.
const NONCE: (&str, usize) = ("r=", 44);

/// The longest salt, in base64. MongoDB's have 24 and 40 characters.
const MAX_SALT: usize = 172;

/// Checks a message of a server. Returns the salt with the rounds, if it names them: what the driver remembers a login
/// by. Messages without, as the last one of a login, are none of this module's business.
pub(super) fn check(message: &[u8]) -> Result<Option<String>, String> {
    let Ok(message) = std::str::from_utf8(message) else { return Ok(None) };
    let (mut salt, mut rounds) = (None, None);
    for attribute in message.split(',') {
        let twice = match attribute.split_once('=') {
            Some(("i", named)) if is_too_many(named) => {
                return Err(format!("it asks for more than {MAX_ROUNDS} rounds of hashing"));
            }
            Some(("s", named)) if named.len() > MAX_SALT => {
                return Err(format!("its salt has more than {MAX_SALT} characters"));
            }
            Some(("i", named)) => rounds.replace(named).is_some(),
            Some(("s", named)) => salt.replace(named).is_some(),
            _ => false,
        };
        if twice {
            return Err("it names a salt or rounds twice".to_owned());
        }
    }
    match (salt, rounds) {
        (None, None) => Ok(None),
        _ if !has_nonce(message) => Err("it does not begin with the nonce of this login".to_owned()),
        (salt, rounds) => Ok(Some(format!("{},{}", salt.unwrap_or_default(), rounds.unwrap_or_default()))),
    }
}

fn has_nonce(message: &str) -> bool {
    let (name, length) = NONCE;
    let nonce = message.strip_prefix(name).and_then(|rest| rest.split(',').next());
    nonce.is_some_and(|nonce| nonce.is_ascii() && nonce.len() >= length)
}

/// Whether a number of rounds is too large. What is no number is not hashed by.
fn is_too_many(rounds: &str) -> bool {
    rounds.parse::<u64>().map_or(rounds.len() > 10, |rounds| rounds > MAX_ROUNDS.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_honest_servers_ask_for_is_admitted_and_more_is_not() {
        let message =
            |salt: &str, rounds: &str| format!("r={},s={salt},i={rounds}", "n".repeat(44)).into_bytes();
        for (salt, rounds) in [("QSXCR+Q6sek8bf92", "4096"), (&"x".repeat(172), "100000"), ("", "none")] {
            assert_eq!(check(&message(salt, rounds)), Ok(Some(format!("{salt},{rounds}"))));
        }
        for (salt, rounds) in [
            ("c2FsdA==", "100001"),
            ("c2FsdA==", "2147483647"),
            ("c2FsdA==", "4294967296"),
            ("c2FsdA==", "99999999999999999999999"),
            ("c2FsdA==", "00000000000000000100001"),
            (&"x".repeat(173), "15000"),
        ] {
            assert!(check(&message(salt, rounds)).is_err(), "{salt} {rounds}");
        }
        // The order is the server's, and so is what is between.
        for twice in [b"i=1,x=y,i=100001,r=a=b".as_slice(), b"s=a,i=1,s=b", b"i=1,i=1"] {
            assert!(check(twice).is_err());
        }
        // The driver would look for its own nonce beyond the end of the server's, or within a character.
        for nonce in ["x", &"n".repeat(43), &"\u{e9}".repeat(22), &format!("{}\u{e9}", "n".repeat(43))] {
            assert!(check(format!("r={nonce},s=c2FsdA==,i=4096").as_bytes()).is_err(), "{nonce}");
        }
        assert!(check(format!("s=c2FsdA==,r={},i=4096", "n".repeat(44)).as_bytes()).is_err());
        for other in [b"v=c2lnbmF0dXJl".as_slice(), b"", b"\xff\xfe", b",,,=,", b"e=other-error"] {
            assert_eq!(check(other), Ok(None));
        }
    }
}
