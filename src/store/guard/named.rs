//! What servers have named that the driver keeps: other servers, and salts. Each may be named again and again, but not a
//! new one each time.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// The names of one kind, up to a limit.
#[derive(Debug)]
pub(super) struct Names {
    limit: usize,
    seen: Mutex<HashSet<String>>,
}

impl Names {
    /// At most `limit` different ones.
    pub(super) fn at_most(limit: usize) -> Self {
        Self { limit, seen: Mutex::default() }
    }

    /// Whether these may be used too.
    pub(super) fn admit<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        // No code panics while it holds the lock.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .into_iter()
            .all(|name| seen.contains(name) || (seen.len() < self.limit && seen.insert(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_come_again_and_again_but_not_a_new_one_each_time() {
        let names = Names::at_most(16);
        let admitted = (0..100).filter(|number: &i32| names.admit([number.to_string().as_str()])).count();
        assert_eq!(admitted, 16);
        assert!(names.admit(["0", "15"]) && names.admit([]) && !names.admit(["0", "new"]));
    }
}
