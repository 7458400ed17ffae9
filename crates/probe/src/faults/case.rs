//! What was looked at while something was broken, and whether it held.
use super::Engine;
use crate::table::Table;
use serde::Serialize;
use std::time::Duration;

/// One fault on one engine.
#[derive(Debug, Serialize)]
pub struct Case {
    pub fault: String,
    pub engine: Engine,
    /// What had to hold.
    checks: Vec<Check>,
    /// Figures that were taken besides, in words.
    pub notes: Vec<String>,
    /// From when the fault was over until everything worked; of several, the longest.
    pub recovery_ms: Option<u128>,
    /// Why it could not be tried here.
    skipped: Option<String>,
    pub took_ms: u128,
}

#[derive(Debug, Serialize)]
struct Check {
    what: String,
    held: bool,
    /// What was seen instead, or the count of what was looked at.
    seen: String,
}

impl Case {
    pub fn new(fault: String, engine: Engine) -> Self {
        Self {
            fault,
            engine,
            checks: vec![],
            notes: vec![],
            recovery_ms: None,
            skipped: None,
            took_ms: 0,
        }
    }

    /// Something that has to hold, and what was seen.
    pub fn check(&mut self, what: impl Into<String>, held: bool, seen: impl ToString) {
        let (what, seen) = (what.into(), seen.to_string());
        eprintln!(
            "  {} {what}: {seen}",
            if held { "held  " } else { "BROKEN" }
        );
        self.checks.push(Check { what, held, seen });
    }

    /// A list of what went wrong, which has to be empty.
    pub fn none(&mut self, what: impl Into<String>, wrong: &[String]) {
        let seen = match wrong {
            [] => "none".to_owned(),
            [first, ..] => format!("{}, the first: {first}", wrong.len()),
        };
        self.check(what, wrong.is_empty(), seen);
    }

    pub fn recovered(&mut self, took: Duration) {
        self.recovery_ms = self.recovery_ms.max(Some(took.as_millis()));
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn skip(&mut self, why: impl ToString) {
        self.skipped = Some(why.to_string());
    }

    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    fn verdict(&self) -> String {
        let broken: Vec<_> = self.checks.iter().filter(|check| !check.held).collect();
        match (&self.skipped, broken.as_slice()) {
            (_, [first, ..]) => format!("{}: {}", first.what, first.seen),
            (Some(why), []) => why.clone(),
            (None, []) => {
                let held: Vec<_> = self.checks.iter().map(|check| &*check.what).collect();
                held.join("; ")
            }
        }
    }
}

/// A row a case, and the figures below.
pub fn print(cases: &[Case]) {
    let mut table = Table::new(&["", "fault", "engine", ">recovery ms", "what held"]);
    for case in cases {
        let mark = match (&case.skipped, case.held()) {
            (_, false) => "BROKEN",
            (Some(_), true) => "not run",
            (None, true) => "held",
        };
        let recovery = case.recovery_ms.map_or(String::new(), |ms| ms.to_string());
        let engine = case.engine.to_string();
        let cells = [mark, &case.fault, &engine, &recovery, &case.verdict()];
        table.row(cells.map(ToOwned::to_owned));
    }
    println!("{table}");
    for case in cases {
        for note in &case.notes {
            println!("{}, {}: {note}", case.fault, case.engine);
        }
    }
    let held = cases
        .iter()
        .filter(|case| case.skipped.is_none() && case.held());
    let broken = cases.iter().filter(|case| !case.held()).count();
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    println!(
        "\n{} held, {broken} did not, {skipped} could not be tried here",
        held.count()
    );
}
