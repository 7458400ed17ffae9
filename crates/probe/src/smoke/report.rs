//! What is shown of a walk.
use crate::table::Table;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Step {
    pub step: &'static str,
    pub expected: &'static str,
    /// Never a token.
    pub got: String,
    pub ms: u128,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

pub fn print(steps: &[Step]) {
    let mut table = Table::new(&["", "step", "expected", "got", ">ms"]);
    for step in steps {
        let mark = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        let cells = [
            mark,
            step.step,
            step.expected,
            &step.got,
            &step.ms.to_string(),
        ];
        table.row(cells.map(ToOwned::to_owned));
    }
    print!("{table}");
    let count = |outcome| steps.iter().filter(|step| step.outcome == outcome).count();
    println!(
        "\n{} ok, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    );
}
