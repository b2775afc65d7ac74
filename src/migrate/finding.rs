//! What is said of a translation: one finding for each thing that is left to do, changes, is left out or stays.

use std::collections::BTreeSet;

use crate::runtime::Escape;

/// The most findings that are kept; of the others only the number is told.
const MAX_FINDINGS: usize = 1_000;

/// The longest text of a finding that is shown, in characters. What it quotes was written by others.
const MAX_TEXT: usize = 1_500;

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was not translated, and somebody must decide.
    Left,
    /// It was translated, and behaves differently from before.
    Changed,
    /// It is left out, since nothing needs it any more.
    Dropped,
    /// It stays where it is.
    Stays,
    /// It is to be done after the switch.
    Later,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Left, Self::Changed, Self::Dropped, Self::Stays, Self::Later];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Changed => "changed",
            Self::Dropped => "dropped",
            Self::Stays => "stays",
            Self::Later => "later",
        }
    }

    /// What the findings of this kind are.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Left => "Left to do: this was not translated",
            Self::Changed => "Changed: this behaves differently from before",
            Self::Dropped => "Dropped: nothing needs this any more",
            Self::Stays => "Stays: this is not touched",
            Self::Later => "Later: what to delete, and when",
        }
    }
}

/// Whom a finding concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Who sends requests from outside.
    Users,
    /// The other services of the system.
    Services,
    /// The pods of the orders API.
    Pods,
    /// Who administers the system.
    You,
}

impl Whom {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Services => "services",
            Self::Pods => "pods",
            Self::You => "you",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it means.
    pub kind: Kind,
    /// Whom it concerns.
    pub whom: Whom,
    /// The object that it is about.
    pub object: String,
    /// What is said.
    pub text: String,
}

/// All findings of a translation, each once.
#[derive(Debug, Default)]
pub struct Findings {
    listed: Vec<Finding>,
    known: BTreeSet<Finding>,
    /// How many more there are of each kind.
    more: [usize; Kind::ALL.len()],
}

impl Findings {
    /// Adds one, unless it is known.
    pub(super) fn add(&mut self, kind: Kind, whom: Whom, object: &str, text: impl Into<String>) {
        let shown = |text: &str| {
            let line = Escape::Text.line(text);
            match line.char_indices().nth(MAX_TEXT) {
                Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
                None => line.into_owned(),
            }
        };
        let finding = Finding { kind, whom, object: shown(object), text: shown(&text.into()) };
        if self.known.contains(&finding) {
            return;
        }
        if self.listed.len() >= MAX_FINDINGS {
            self.more
                .iter_mut()
                .zip(Kind::ALL)
                .filter(|(_, of)| *of == kind)
                .for_each(|(more, _)| *more += 1);
            return;
        }
        self.known.insert(finding.clone());
        self.listed.push(finding);
    }

    /// Forgets those of one kind.
    pub(super) fn forget(&mut self, kind: Kind) {
        self.listed.retain(|finding| finding.kind != kind);
        self.known.retain(|finding| finding.kind != kind);
        let more = self.more.iter_mut().zip(Kind::ALL).find(|(_, of)| *of == kind);
        if let Some((more, _)) = more {
            *more = 0;
        }
    }

    /// Takes over those of another translation.
    pub(super) fn extend(&mut self, others: Self) {
        for Finding { kind, whom, object, text } in others.listed {
            self.add(kind, whom, &object, text);
        }
        self.more.iter_mut().zip(others.more).for_each(|(more, others)| *more += others);
    }

    /// Those of one kind, in the order in which they were found; and how many more there are.
    pub fn of(&self, kind: Kind) -> (impl Iterator<Item = &Finding>, usize) {
        let more = self.more.iter().zip(Kind::ALL).find(|(_, of)| *of == kind).map_or(0, |(more, _)| *more);
        (self.listed.iter().filter(move |finding| finding.kind == kind), more)
    }

    /// Whether something was not translated.
    pub fn is_anything_left(&self) -> bool {
        let (mut listed, more) = self.of(Kind::Left);
        more > 0 || listed.next().is_some()
    }

    /// A table: what, for whom, where, and the text.
    pub fn table(&self) -> String {
        let width =
            |text: &dyn Fn(&Finding) -> usize| self.listed.iter().map(text).max().unwrap_or(0).min(48);
        let objects = width(&|finding| finding.object.chars().count());
        let mut table = String::new();
        for kind in Kind::ALL {
            let (listed, more) = self.of(kind);
            for Finding { whom, object, text, .. } in listed {
                let (kind, whom) = (kind.as_str(), whom.as_str());
                table.push_str(&format!("{kind:<8} {whom:<9} {object:<objects$}  {text}\n"));
            }
            if more > 0 {
                table.push_str(&format!("{:<8} ... and {more} more of this kind\n", kind.as_str()));
            }
        }
        table
    }
}

/// Where a reader of one object says what it finds.
pub(super) struct Notes<'a> {
    object: String,
    findings: &'a mut Findings,
}

impl<'a> Notes<'a> {
    /// What is said is about this object.
    pub(super) fn about(object: impl Into<String>, findings: &'a mut Findings) -> Self {
        Self { object: object.into(), findings }
    }

    /// The object that is spoken of.
    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// It was not translated.
    pub(super) fn left(&mut self, whom: Whom, text: impl Into<String>) {
        self.findings.add(Kind::Left, whom, &self.object, text);
    }

    /// It was translated, and behaves differently.
    pub(super) fn changed(&mut self, whom: Whom, text: impl Into<String>) {
        self.findings.add(Kind::Changed, whom, &self.object, text);
    }

    /// It is left out.
    pub(super) fn dropped(&mut self, whom: Whom, text: impl Into<String>) {
        self.findings.add(Kind::Dropped, whom, &self.object, text);
    }

    /// It stays.
    pub(super) fn stays(&mut self, whom: Whom, text: impl Into<String>) {
        self.findings.add(Kind::Stays, whom, &self.object, text);
    }

    /// It is to be done after the switch.
    pub(super) fn later(&mut self, text: impl Into<String>) {
        self.findings.add(Kind::Later, Whom::You, &self.object, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_none_can_forge_a_line() {
        let mut findings = Findings::default();
        for _ in 0..2 {
            findings.add(Kind::Changed, Whom::Users, "Ingress a\nleft", "x\n# y\u{1b}[2J");
        }
        assert_eq!(findings.table(), "changed  users     Ingress a\\nleft  x\\n# y\\u{1b}[2J\n");
        assert!(!findings.is_anything_left());
    }

    #[test]
    fn of_too_many_the_number_is_told_and_what_is_left_still_counts() {
        let mut findings = Findings::default();
        for at in 0..=MAX_FINDINGS {
            findings.add(Kind::Dropped, Whom::You, "x", at.to_string());
        }
        findings.add(Kind::Left, Whom::You, "x", "a".repeat(2 * MAX_TEXT));
        assert!(findings.is_anything_left());
        let table = findings.table();
        assert!(table.contains("left     ... and 1 more of this kind\n"), "{table}");
        assert!(table.contains("dropped  ... and 1 more of this kind\n"), "{table}");
        findings.forget(Kind::Dropped);
        assert_eq!(findings.table(), "left     ... and 1 more of this kind\n");
    }
}
