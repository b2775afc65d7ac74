//! Colours, on a terminal only; and the escaping of what others wrote, wherever it is printed.

use std::{borrow::Cow, io};

use anstyle::{AnsiColor, Style};

use crate::runtime::{Escape, has_colours};

/// How text is painted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    coloured: bool,
}

impl Paint {
    /// With colours if the standard output is a terminal, unless `NO_COLOR` says otherwise.
    pub(super) fn of_stdout() -> Self {
        Self { coloured: has_colours(&io::stdout()) }
    }

    /// What is well.
    pub(super) fn good(self, text: &str) -> String {
        self.styled(text, AnsiColor::Green.on_default())
    }

    /// What may not be meant.
    pub(super) fn doubtful(self, text: &str) -> String {
        self.styled(text, AnsiColor::Yellow.on_default())
    }

    /// What is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.styled(text, AnsiColor::Red.on_default())
    }

    /// A heading.
    pub(super) fn heading(self, text: &str) -> String {
        self.styled(text, Style::new().bold())
    }

    /// What counts less.
    pub(super) fn dim(self, text: &str) -> String {
        self.styled(text, Style::new().dimmed())
    }

    fn styled(self, text: &str, style: Style) -> String {
        let text = plain(text);
        if self.coloured { format!("{style}{text}{style:#}") } else { text.into_owned() }
    }
}

/// Text that may have been written by others.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    Escape::Text.line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_paint_and_without_a_terminal_nothing_is_painted() {
        let hostile = "a\u{1b}[31mb\nc";
        let (colours, none) = (Paint { coloured: true }, Paint { coloured: false });
        assert_eq!(colours.good(hostile), "\u{1b}[32ma\\u{1b}[31mb\\nc\u{1b}[0m");
        for text in [none.good(hostile), none.doubtful(hostile), none.bad(hostile), none.heading(hostile)] {
            assert_eq!(text, "a\\u{1b}[31mb\\nc");
        }
        assert_eq!(plain(hostile), none.dim(hostile));
    }
}
