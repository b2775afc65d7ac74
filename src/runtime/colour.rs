//! Whether what is printed has colours.

use std::{env, ffi::OsStr, io::IsTerminal};

/// Whether to write colours to `stream`: it is a terminal, and `NO_COLOR` is not set, or is empty (<https://no-color.org>).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && !refuses(env::var_os("NO_COLOR").as_deref())
}

fn refuses(no_color: Option<&OsStr>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_of_no_color_refuses_colours_and_an_empty_one_is_none() {
        assert!(refuses(Some(OsStr::new("1"))) && refuses(Some(OsStr::new("false"))));
        assert!(!refuses(Some(OsStr::new(""))) && !refuses(None));
    }
}
