//! Which objects claim which paths of which hosts, and who gets them: the oldest.
//!
//! The index is by host, so the cost of a change depends on the object's own hosts and not on the number of objects.
//! An object that loses a path keeps its claim: when the winner is removed, the index returns the objects that must
//! be reconciled again.
//!
//! ```text
//! claim     what is claimed, by whom, and what a claimant is told
//! index     the claims, and what each claimant is told
//! affected  whose answers a change of the claims may change
//! owners    which namespace owns which hosts
//! sorted    sorted lists of claimants
//! ```

mod affected;
mod claim;
mod index;
mod owners;
mod sorted;

pub use claim::{Claim, Claimant, ClaimantId, ClaimantKind, EntryPoint, HostPolicy, Refusal, Site, Verdict};
pub use index::ClaimIndex;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod owner_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
