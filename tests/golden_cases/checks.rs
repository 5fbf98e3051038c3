//! Collects comparisons: the worst error of every quantity as a fraction of its tolerance, and what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Failures shown per quantity; one is usually enough to start looking.
const SHOWN: usize = 2;

#[derive(Default)]
struct Quantity {
    /// Largest error / tolerance.
    worst: f64,
    compared: usize,
    failed: usize,
}

/// All comparisons of one case.
#[derive(Default)]
pub struct Checks {
    quantities: BTreeMap<String, Quantity>,
    failures: Vec<String>,
    remarks: BTreeSet<String>,
    /// Name of the running case, for failures.
    pub variant: String,
}

impl Checks {
    /// Notes whether `found` is within `tolerance` of `expected`; `place` says which element it is.
    pub fn close(
        &mut self,
        quantity: &str,
        place: impl FnOnce() -> String,
        found: f64,
        expected: f64,
        tolerance: f64,
    ) {
        let error = (found - expected).abs();
        let ratio = if error == 0.0 { 0.0 } else { error / tolerance };
        let text = || format!("{}: found {found:e}, expected {expected:e} ± {tolerance:e}", place());
        self.note(quantity, ratio, text);
    }

    /// Notes a condition that has no tolerance.
    pub fn holds(&mut self, quantity: &str, condition: bool, text: impl FnOnce() -> String) {
        self.note(quantity, if condition { 0.0 } else { f64::INFINITY }, text);
    }

    /// Notes an error already expressed as a fraction of its tolerance.
    pub fn note(&mut self, quantity: &str, ratio: f64, text: impl FnOnce() -> String) {
        if !self.quantities.contains_key(quantity) {
            self.quantities.insert(quantity.to_owned(), Quantity::default());
        }
        let entry = self.quantities.get_mut(quantity).expect("just inserted");
        entry.compared += 1;
        // A NaN must fail.
        let passes = ratio <= 1.0;
        entry.worst = if ratio.is_nan() { f64::NAN } else { entry.worst.max(ratio) };
        if !passes {
            entry.failed += 1;
            if entry.failed <= SHOWN {
                self.failures.push(format!("[{}] {quantity}, {}", self.variant, text()));
            }
        }
    }

    /// Says, once, something about the case that is no comparison.
    pub fn remark(&mut self, text: &str) {
        self.remarks.insert(text.to_owned());
    }

    /// Whether everything was within its tolerance, and there was anything.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && !self.quantities.is_empty()
    }

    /// One line of worst ratios, then the failures.
    pub fn report(&self, case: &str) -> String {
        let verdict = match (self.passed(), self.quantities.is_empty()) {
            (true, _) => "ok  ",
            (false, true) => "EMPTY",
            (false, false) => "FAIL",
        };
        let mut text = format!("{verdict} {case}: worst error / tolerance:");
        for (name, quantity) in &self.quantities {
            let failed = if quantity.failed > 0 { format!("!{}", quantity.failed) } else { String::new() };
            let _ = write!(text, " {name} {:.2}{failed}/{}", quantity.worst, quantity.compared);
        }
        for failure in self.remarks.iter().chain(&self.failures) {
            let _ = write!(text, "\n       {failure}");
        }
        if self.quantities.is_empty() {
            text.push_str("\n       nothing in this case could be compared");
        }
        text
    }
}
