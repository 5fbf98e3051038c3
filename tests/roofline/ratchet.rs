//! The committed table of predictions, which nothing may fall behind.

use std::path::Path;

use super::table::Table;

/// The table. A prediction that differs by more than 3 % has to change it.
const COMMITTED: &str = include_str!("predicted.csv");
const SLACK: f64 = 1.03;
/// Kernels with less than this part of the time have no line of their own.
const LEAST: f64 = 0.01;
/// The table's first line.
const TITLE: &str = "machine;model;work;kernel;blocks;Mflop of a block;launches;ms;bound or result";

/// What was predicted for a model's work on a machine.
pub struct Predicted {
    pub machine: &'static str,
    pub model: &'static str,
    pub work: String,
    pub table: Table,
    /// What the sum of all times comes to.
    pub result: String,
}

/// A line: what it is of, and milliseconds, launches and the last column.
struct Line {
    name: String,
    launches: f64,
    ms: f64,
    last: String,
}

impl Line {
    fn text(&self) -> String {
        format!("{};{:.0};{:.3};{}", self.name, self.launches, self.ms, self.last)
    }

    /// Reads a line of the table.
    fn read(text: &str) -> Option<Self> {
        let mut fields = text.rsplitn(4, ';');
        let last = fields.next()?.to_owned();
        let (ms, launches) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Line { name: fields.next()?.to_owned(), launches, ms, last })
    }
}

impl Predicted {
    fn lines(&self) -> Vec<Line> {
        let Predicted { machine, model, work, table, result } = self;
        let of = format!("{machine};{model};{work}");
        let sum = table.us();
        let mut lines = Vec::new();
        // Of an H200 the sums are enough: it is an H100 with faster memory.
        for ((kernel, blocks, mflop), row) in table.0.iter().filter(|_| *machine != "h200") {
            if row.us >= LEAST * sum {
                let name = format!("{of};{kernel};{blocks};{mflop}");
                lines.push(Line {
                    name,
                    launches: row.launches,
                    ms: row.us / 1e3,
                    last: row.bound.to_owned(),
                });
            }
        }
        let name = format!("{of};sum;;");
        lines.push(Line { name, launches: table.launches(), ms: sum / 1e3, last: result.clone() });
        lines
    }
}

/// Compares predictions with the committed ones.
pub fn check(found: &[Predicted]) {
    let lines: Vec<Line> = found.iter().flat_map(Predicted::lines).collect();
    let text: String = lines.iter().map(|line| line.text() + "\n").collect();
    println!("predicted, not measured:\n{TITLE}\n{text}");
    let committed: Vec<Line> = COMMITTED.lines().filter_map(Line::read).collect();
    let mut problems = Vec::new();
    for line in &lines {
        match committed.iter().find(|before| before.name == line.name) {
            None => problems.push(format!("not in predicted.csv: {}", line.text())),
            Some(before) if line.ms > before.ms * SLACK || line.launches > before.launches => {
                problems.push(format!("was {}: {}", before.ms, line.text()));
            }
            Some(before) if line.ms * SLACK < before.ms || line.launches < before.launches => {
                problems.push(format!("better than {}, write it down: {}", before.ms, line.text()));
            }
            Some(_) => {}
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("predicted.csv");
    let of = |name: &str| {
        found.iter().any(|one| name.starts_with(&format!("{};{};{};", one.machine, one.model, one.work)))
    };
    let gone = committed
        .iter()
        .filter(|before| of(&before.name) && !lines.iter().any(|line| line.name == before.name));
    problems.extend(gone.map(|before| format!("in predicted.csv alone: {}", before.text())));
    if !problems.is_empty() {
        let rest = committed.iter().filter(|before| !of(&before.name)).map(|before| before.text() + "\n");
        let whole = format!("{TITLE}\n{}{text}", rest.collect::<String>());
        std::fs::write(&file, whole).expect("a file in the target folder");
        panic!("{}\nThe table with these is {}", problems.join("\n"), file.display());
    }
}
