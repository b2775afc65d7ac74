//! The resourceVersion of an object.

/// A resourceVersion. Thousands are in memory, so it is kept as a number if it is one, as etcd's are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceVersion {
    /// From an API server that counts: the lower of two is the older.
    Number(u64),
    /// Any other: two of these can only be compared for equality.
    Opaque(Box<str>),
}

impl ResourceVersion {
    /// Whether it is known to be older.
    pub fn is_before(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Number(one), Self::Number(other)) if one < other)
    }
}

impl From<&str> for ResourceVersion {
    fn from(text: &str) -> Self {
        match text.parse() {
            // A leading zero or sign would give two different texts the same number.
            Ok(number) if !text.starts_with(['0', '+']) => Self::Number(number),
            _ => Self::Opaque(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_older_or_newer_and_no_two_texts_are_one_version() {
        let version = ResourceVersion::from;
        assert!(version("9").is_before(&version("10")));
        for (one, other) in [("10", "9"), ("9", "9"), ("9", "x"), ("x", "y"), ("", "1")] {
            assert!(!version(one).is_before(&version(other)), "{one} {other}");
        }
        let texts = ["1", "01", "+1", "0", "00", "", "x", "99999999999999999999999"];
        for (at, one) in texts.iter().enumerate() {
            assert!(
                texts.iter().enumerate().all(|(of, other)| (at == of) == (version(one) == version(other)))
            );
        }
        assert!(size_of::<ResourceVersion>() <= 16);
    }
}
