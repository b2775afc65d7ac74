//! The lines of a check, in groups.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::osvc::{
    error::AskError,
    paint::{Paint, plain},
};

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, or cannot be checked.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was checked.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    level: Level,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Things that belong together.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    title: String,
    lines: Vec<Line>,
}

/// Everything that was checked.
#[derive(Debug, Default)]
pub(super) struct Report {
    groups: Vec<Group>,
}

/// The report as programs read it.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    ok: usize,
    warnings: usize,
    failures: usize,
    groups: &'a [Group],
}

impl Group {
    /// A group without lines.
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lines: Vec::new() }
    }

    /// Something is as it should be.
    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.lines.push(Line { level: Level::Ok, text: text.into(), todo: None });
    }

    /// Something works but may not be meant, or cannot be checked.
    pub(super) fn warning(&mut self, text: impl Into<String>, todo: impl Into<String>) {
        self.lines.push(Line { level: Level::Warning, text: text.into(), todo: Some(todo.into()) });
    }

    /// Something does not work.
    pub(super) fn failure(&mut self, text: impl Into<String>, todo: impl Into<String>) {
        self.lines.push(Line { level: Level::Failure, text: text.into(), todo: Some(todo.into()) });
    }

    /// Something could not be asked: without the right to, whoever has it may; anything else is a failure.
    pub(super) fn unasked(&mut self, error: &AskError) {
        match error {
            AskError::Forbidden(_) => self.warning(
                error.to_string(),
                "so this is not checked: have someone with that permission run this check",
            ),
            _ => self.failure(error.to_string(), "check that the API server is healthy, and try again"),
        }
    }

    /// Adds the lines of another group, whose title is left out.
    pub(super) fn append(&mut self, mut other: Self) {
        self.lines.append(&mut other.lines);
    }

    /// Whether any line fails.
    pub(super) fn fails(&self) -> bool {
        self.lines.iter().any(|line| line.level == Level::Failure)
    }
}

impl Report {
    /// Adds a group, unless nothing was checked.
    pub(super) fn add(&mut self, group: Group) {
        if !group.lines.is_empty() {
            self.groups.push(group);
        }
    }

    /// How many lines are of this level.
    pub(super) fn count(&self, level: Level) -> usize {
        self.groups.iter().flat_map(|group| &group.lines).filter(|line| line.level == level).count()
    }

    /// As programs read it.
    pub(super) fn summary(&self) -> Summary<'_> {
        let [ok, warnings, failures] =
            [Level::Ok, Level::Warning, Level::Failure].map(|level| self.count(level));
        Summary { ok, warnings, failures, groups: &self.groups }
    }

    /// As text.
    ///
    /// # Errors
    /// None that can happen: text is written to memory.
    pub(super) fn text(&self, paint: Paint) -> Result<String, fmt::Error> {
        let mut text = String::new();
        for Group { title, lines } in &self.groups {
            writeln!(text, "{}", paint.heading(title))?;
            for Line { level, text: what, todo } in lines {
                let level = match level {
                    Level::Ok => paint.good("ok     "),
                    Level::Warning => paint.doubtful("warning"),
                    Level::Failure => paint.bad("failure"),
                };
                writeln!(text, "  {level}  {}", plain(what))?;
                if let Some(todo) = todo {
                    writeln!(text, "           {}", plain(todo))?;
                }
            }
            writeln!(text)?;
        }
        let Summary { ok, warnings, failures, .. } = self.summary();
        let (warnings, failures) =
            (counted(warnings, "warning", "warnings"), counted(failures, "failure", "failures"));
        writeln!(text, "{ok} ok, {warnings}, {failures}")?;
        Ok(text)
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
