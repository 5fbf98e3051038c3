//! Predictions of a whole step, by kernel.

use std::collections::BTreeMap;

use super::launch::predict;
use super::launches::Launches;
use super::machine::Machine;
use super::sass::loops;

/// Launches of one kernel with one grid and the same products of a block.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub launches: f64,
    pub us: f64,
    pub bound: &'static str,
}

/// A kernel, its blocks, and millions of operations of tensor cores of a block.
pub type Key = (String, u64, u64);

/// Predicted times by kernel.
#[derive(Clone, Debug, Default)]
pub struct Table(pub BTreeMap<Key, Row>);

impl Table {
    /// Of what was launched.
    pub fn of(machine: &Machine, launches: &Launches) -> Self {
        let loops = loops(&machine.arch);
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        for (kernel, launched) in launches {
            let loops = loops.get(kernel).unwrap_or_else(|| panic!("no machine code of {kernel}"));
            let found = predict(machine, kernel, launched, loops);
            let mflops = launched.counters.tensor_flops / launched.counters.blocks / 1_000_000;
            let row = rows.entry((kernel.clone(), launched.blocks, mflops)).or_default();
            row.launches += 1.0;
            row.us += found.us;
            row.bound = found.bound;
        }
        Table(rows)
    }

    /// Of `layers`, from what one layer more than in `fewer` adds to it in `self`, which has `own` layers.
    pub fn with_layers(mut self, own: usize, fewer: &Table, layers: usize) -> Self {
        let more = (layers - own) as f64;
        // Some grids depend on the number of layers: those of one kernel stand for each other.
        let only_fewer: Vec<(&Key, &Row)> =
            fewer.0.iter().filter(|(key, _)| !self.0.contains_key(key)).collect();
        for (key, row) in &mut self.0 {
            let none = Row::default();
            let other = || only_fewer.iter().find(|(other, _)| other.0 == key.0).map(|(_, row)| *row);
            let before = fewer.0.get(key).or_else(other).unwrap_or(&none);
            row.us += more * (row.us - before.us);
            row.launches += more * (row.launches - before.launches);
        }
        self
    }

    /// What was launched here and not in `fewer`.
    pub fn without(mut self, fewer: &Table) -> Self {
        for (key, row) in &mut self.0 {
            if let Some(before) = fewer.0.get(key) {
                row.us -= before.us;
                row.launches -= before.launches;
            }
        }
        self.0.retain(|_, row| row.launches > 0.0);
        self
    }

    /// With the rows of a kernel from another table.
    pub fn with_kernel(mut self, kernel: &str, other: Table) -> Self {
        self.0.retain(|key, _| key.0 != kernel);
        self.0.extend(other.0.into_iter().filter(|(key, _)| key.0 == kernel));
        self
    }

    /// Microseconds.
    pub fn us(&self) -> f64 {
        self.0.values().map(|row| row.us).sum()
    }

    pub fn launches(&self) -> f64 {
        self.0.values().map(|row| row.launches).sum()
    }
}

#[test]
fn layers_are_added_that_were_not_emulated() {
    let row = |launches: f64, us: f64| Row { launches, us, bound: "HBM" };
    let key = |kernel: &str, blocks: u64| (kernel.to_owned(), blocks, 0);
    let table = |rows: &[(Key, Row)]| Table(rows.iter().cloned().collect());
    // A kernel of each layer, one beside them, and one whose grid depends on the number of layers.
    let fewer = table(&[
        (key("layer", 8), row(2.0, 20.0)),
        (key("head", 3), row(1.0, 5.0)),
        (key("update", 2), row(1.0, 4.0)),
    ]);
    let more = table(&[
        (key("layer", 8), row(3.0, 30.0)),
        (key("head", 3), row(1.0, 5.0)),
        (key("update", 3), row(1.0, 6.0)),
    ]);
    let all = more.with_layers(3, &fewer, 10);
    assert_eq!((all.launches(), all.us()), (10.0 + 1.0 + 1.0, 100.0 + 5.0 + 20.0));
}
