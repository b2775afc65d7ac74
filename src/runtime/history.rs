//! Notices that the API server shows an earlier state than before, as after its etcd was restored from a backup.
//!
//! The versions of objects count on from a lower number then. A watch goes on from the number that it had reached, and
//! shows nothing until that is reached again, without any error: what the process knows stays as it was before the
//! restoration. So such a process ends, and begins anew.

/// The versions of one object that is written all the time, as the API server has shown them.
#[derive(Debug, Default)]
pub struct History {
    highest: u64,
}

impl History {
    /// The API server shows this version now. Gives whether that is earlier than one that it has shown before. Versions
    /// that are no numbers tell no order.
    #[must_use]
    pub fn went_back(&mut self, version: Option<&str>) -> bool {
        let Some(version) = version.and_then(|text| text.parse::<u64>().ok()) else { return false };
        let went_back = version < self.highest;
        self.highest = self.highest.max(version);
        went_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_number_is_earlier() {
        let mut history = History::default();
        for (version, expected) in [
            (None, false),
            (Some("9"), false),
            (Some("9"), false),
            (Some("x"), false),
            (Some("10"), false),
            (Some("9"), true),
            (Some("11"), false),
        ] {
            assert_eq!(history.went_back(version), expected, "{version:?}");
        }
    }
}
