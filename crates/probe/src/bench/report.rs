//! What was measured, for people and for programs.
use super::{
    load::Turn,
    machine::Machine,
    stats::{Spread, percentile},
};
use crate::table::Table;
use serde::Serialize;
use std::fmt;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    compared: Vec<Compared>,
    figures: Vec<Figure>,
    /// What was not measured, and why.
    skipped: Vec<String>,
}

/// The server and its limit, doing the same.
#[derive(Debug, Serialize)]
struct Compared {
    scenario: String,
    ours: Side,
    bare: Side,
    /// Of our requests a second to the limit's, round by round.
    ratio: Spread,
    ratios: Vec<f64>,
    aim: f64,
    reached: bool,
}

#[derive(Debug, Serialize)]
struct Side {
    name: String,
    requests: usize,
    requests_per_s: Spread,
    /// Over all rounds.
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    /// Of the serving process. `None` where the work is in another.
    cpu_s_per_1000: Option<f64>,
    rss_mib: Option<f64>,
}

impl Side {
    fn of(name: &str, turns: &[Turn]) -> Self {
        let mut latencies: Vec<u32> = turns
            .iter()
            .flat_map(|turn| turn.latencies.iter().copied())
            .collect();
        latencies.sort_unstable();
        let ms = |share| f64::from(percentile(&latencies, share)) / 1000.0;
        let cpu: Option<Vec<f64>> = turns
            .iter()
            .map(|turn| Some(turn.cpu?.as_secs_f64()))
            .collect();
        let requests = latencies.len();
        Self {
            name: name.into(),
            requests,
            requests_per_s: Spread::of(turns.iter().map(Turn::per_second)),
            p50_ms: ms(0.5),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
            cpu_s_per_1000: cpu
                .map(|cpu| cpu.iter().sum::<f64>() / requests.max(1) as f64 * 1000.0),
            rss_mib: turns
                .iter()
                .filter_map(|turn| turn.rss)
                .max()
                .map(|rss| rss as f64 / MIB),
        }
    }
}

/// One thing that was measured several times.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub scenario: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub value: Spread,
    pub samples: usize,
    /// Reached when the median is below.
    pub aim: Option<f64>,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            compared: vec![],
            figures: vec![],
            skipped: vec![],
        }
    }

    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("skipped: {what}");
        self.skipped.push(what);
    }

    /// `aim`: the least ratio that is good.
    pub fn compare(
        &mut self,
        scenario: &str,
        bare: &str,
        aim: f64,
        turns: &(Vec<Turn>, Vec<Turn>),
    ) {
        let rates = |turns: &[Turn]| turns.iter().map(Turn::per_second).collect::<Vec<_>>();
        let (ours, limit) = (rates(&turns.0), rates(&turns.1));
        let ratio = Spread::of_ratios(&ours, &limit);
        self.compared.push(Compared {
            scenario: scenario.into(),
            ours: Side::of("plinth", &turns.0),
            bare: Side::of(bare, &turns.1),
            ratio,
            ratios: ours
                .iter()
                .zip(&limit)
                .map(|(ours, bare)| ours / bare)
                .collect(),
            aim,
            reached: ratio.median >= aim,
        });
    }

    pub fn figure(&mut self, figure: Figure) {
        eprintln!(
            "{}: {}: {:.1} {}",
            figure.scenario, figure.what, figure.value.median, figure.unit
        );
        self.figures.push(figure);
    }

    /// The figures that miss their aim by more than so many percent.
    pub fn missed_by(&self, percent: u32) -> Vec<String> {
        let most = 1.0 + f64::from(percent) / 100.0;
        let missed = self
            .figures
            .iter()
            .filter(|one| one.aim.is_some_and(|aim| one.value.median > aim * most));
        missed
            .map(|one| format!("{}: {}", one.scenario, one.what))
            .collect()
    }

    fn comparisons(&self) -> Table {
        let mut table = Table::new(&[
            "scenario",
            "side",
            ">requests/s",
            ">min",
            ">max",
            ">p50 ms",
            ">p95 ms",
            ">p99 ms",
            ">CPU s/1,000",
            ">RSS MiB",
            ">ratio",
            ">min",
            ">max",
            ">aim",
            "",
        ]);
        for one in &self.compared {
            let verdict = [
                format!("{:.2}", one.ratio.median),
                format!("{:.2}", one.ratio.min),
                format!("{:.2}", one.ratio.max),
                format!("≥ {}", one.aim),
                verdict(one.reached).into(),
            ];
            table.row(side(&one.scenario, &one.ours).into_iter().chain(verdict));
            table.row(side("", &one.bare));
        }
        table
    }

    fn other_figures(&self) -> Table {
        let mut table = Table::new(&[
            "scenario", "what", ">median", ">min", ">max", "unit", ">samples", ">aim", "",
        ]);
        for one in &self.figures {
            let number = |value: f64| format!("{value:.1}");
            let aim = one.aim.map(|aim| format!("< {aim}")).unwrap_or_default();
            let reached = one.aim.map_or("", |aim| verdict(one.value.median < aim));
            table.row([
                one.scenario.into(),
                one.what.clone(),
                number(one.value.median),
                number(one.value.min),
                number(one.value.max),
                one.unit.into(),
                one.samples.to_string(),
                aim,
                reached.into(),
            ]);
        }
        table
    }
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

fn side(scenario: &str, side: &Side) -> [String; 10] {
    let perhaps =
        |value: Option<f64>, digits| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    [
        scenario.into(),
        side.name.clone(),
        format!("{:.0}", side.requests_per_s.median),
        format!("{:.0}", side.requests_per_s.min),
        format!("{:.0}", side.requests_per_s.max),
        format!("{:.2}", side.p50_ms),
        format!("{:.2}", side.p95_ms),
        format!("{:.2}", side.p99_ms),
        perhaps(side.cpu_s_per_1000, 4),
        perhaps(side.rss_mib, 1),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.machine)?;
        for table in [self.comparisons(), self.other_figures()] {
            if !table.is_empty() {
                write!(f, "\n{table}")?;
            }
        }
        for skipped in &self.skipped {
            write!(f, "\nskipped: {skipped}\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::Path, time::Duration};

    fn turn(requests: usize) -> Turn {
        Turn {
            elapsed: Duration::from_secs(1),
            latencies: vec![1500; requests],
            cpu: Some(Duration::from_secs(1)),
            rss: Some(3 * 1024 * 1024),
        }
    }

    #[test]
    fn a_missed_aim_is_said() {
        let mut report = Report::new(Machine::of(Path::new("/")));
        report.compare("health", "axum", 0.8, &(vec![turn(500)], vec![turn(1000)]));

        let table = report.comparisons().to_string();
        let rows: Vec<Vec<_>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let ours = [
            "health", "plinth", "500", "500", "500", "1.50", "1.50", "1.50", "2.0000", "3.0",
            "0.50", "0.50", "0.50", "≥", "0.8", "MISSED",
        ];
        assert_eq!(rows[1], ours);
        assert_eq!(rows[2][..2], ["axum", "1000"]);
    }

    #[test]
    fn a_figure_may_miss_its_aim_by_so_much() {
        let mut report = Report::new(Machine::of(Path::new("/")));
        for (what, aim, value) in [
            ("free", None, 9.0),
            ("near", Some(1.0), 1.3),
            ("far", Some(1.0), 1.31),
        ] {
            report.figure(Figure {
                scenario: "chat",
                what: what.into(),
                unit: "ms",
                value: Spread::of([value]),
                samples: 1,
                aim,
            });
        }

        assert_eq!(report.missed_by(30), ["chat: far"]);
        assert_eq!(report.missed_by(31), Vec::<String>::new());
    }

    #[test]
    fn a_cpu_that_cannot_be_told_is_no_zero() {
        let side = Side::of(
            "pgbench",
            &[Turn {
                cpu: None,
                ..turn(1)
            }],
        );
        assert_eq!(side.cpu_s_per_1000, None);
    }
}
