//! PBKDF2 as the MongoDB driver uses it, with bounds on what a server may ask for.
//!
//! In SCRAM the server names the number of rounds and the salt before it has proved anything. The driver has a lower bound
//! for the rounds and no upper one, and it hashes in the task that connects, holding a lock that every other authentication
//! of the process waits for. So one hostile server could stop all of them for an hour. Hence this crate stands in for the
//! `pbkdf2` that the driver names (`[patch.crates-io]` in the workspace's `Cargo.toml`): it has the same function, and
//! refuses what no honest server asks for.

#![no_std]

use digest::{FixedOutput, InvalidLength, KeyInit, Update, typenum::Unsigned};

/// The most rounds. MongoDB's defaults are 10,000 for SCRAM-SHA-1 and 15,000 for SCRAM-SHA-256; these many take some 50 ms.
pub const MAX_ROUNDS: u32 = 100_000;

/// The longest salt, in bytes. MongoDB's have 16 and 28. The driver keeps the salt of every login that succeeds.
pub const MAX_SALT_LENGTH: usize = 128;

/// Derives a key of the password into `key`.
///
/// Beyond the bounds the key is random. The driver takes an error for impossible and panics, but with a key that nobody
/// can know it fails to authenticate, and neither side learns anything of the password.
///
/// # Errors
/// When the PRF takes no password of this length, which HMAC does, or the system has no random numbers.
pub fn pbkdf2<PRF>(password: &[u8], salt: &[u8], rounds: u32, key: &mut [u8]) -> Result<(), InvalidLength>
where
    PRF: KeyInit + Update + FixedOutput + Clone,
{
    if rounds > MAX_ROUNDS || salt.len() > MAX_SALT_LENGTH {
        return getrandom::fill(key).map_err(|_| InvalidLength);
    }
    let prf = PRF::new_from_slice(password)?;
    for (number, block) in (1_u32..).zip(key.chunks_mut(PRF::OutputSize::USIZE)) {
        let mut hash = prf.clone().chain(salt).chain(number.to_be_bytes()).finalize_fixed();
        block.copy_from_slice(&hash[..block.len()]);
        for _ in 1..rounds {
            hash = prf.clone().chain(&hash).finalize_fixed();
            block.iter_mut().zip(&hash).for_each(|(sum, byte)| *sum ^= byte);
        }
    }
    Ok(())
}
