//! Hidden states, aggregates, scores and logits of one forward pass.

use deepguard::attached::Attached;
use deepguard::ops::Backend;

use crate::golden_cases::case::{Case, Result, Tensor};
use crate::golden_cases::checks::Checks;
use crate::golden_cases::probe::Probe;
use crate::golden_cases::setup::Setup;
use crate::golden_cases::{Precision, Tolerances};

/// The published code adds this to both probabilities inside the logarithms of its KL divergence; ours has no
/// such term.
const PUBLISHED_EPSILON: f64 = 1e-8;

/// Checks one forward pass with a shared prefix and one without. Returns `[pair][position]` how much larger
/// the published KL divergence is than ours by definition, computed in f64 from our logits.
pub fn check<B: Backend>(
    case: &Case,
    setup: &Setup<B>,
    tolerances: Tolerances,
    checks: &mut Checks,
) -> Result<Vec<Vec<f64>>> {
    let attached = setup.attached()?;
    let mut shifts = Vec::new();
    // Emulated devices are slow.
    let one = [!case.is_padded()];
    let ways = if tolerances.precision == Precision::Bf16 { &one[..] } else { &[true, false] };
    for &share_prefix in ways {
        checks.variant = format!("forward, share_prefix={share_prefix}");
        shifts = Forward::new(case, setup, &attached, tolerances, share_prefix)?.check(checks)?;
    }
    Ok(shifts)
}

struct Forward<'a, B: Backend> {
    case: &'a Case,
    probe: Probe<'a, B>,
    tolerances: Tolerances,
    positions: Vec<usize>,
    /// Padded length of the secure side.
    padded: usize,
    pairs: usize,
}

impl<'a, B: Backend> Forward<'a, B> {
    fn new(
        case: &'a Case,
        setup: &'a Setup<B>,
        attached: &'a Attached<B>,
        tolerances: Tolerances,
        share_prefix: bool,
    ) -> Result<Self> {
        let pairs = case.pairs()?;
        Ok(Forward {
            case,
            probe: Probe::of_pairs(&setup.model, attached, &pairs, share_prefix)?,
            tolerances,
            positions: case.positions(),
            padded: case.required("inputs/input_ids_secure")?.shape[1],
            pairs: pairs.len(),
        })
    }

    fn check(&self, checks: &mut Checks) -> Result<Vec<Vec<f64>>> {
        for side in ["secure", "vulnerable"] {
            self.hidden(side, checks);
            self.aggregates(side, checks);
            self.scores(side, checks);
        }
        let mut shifts = Vec::new();
        for pair in 0..self.pairs {
            let (lora, base) = (self.probe.secure_rows(pair), self.probe.base_rows(pair));
            let rows = lora.into_iter().zip(base).enumerate();
            let shift = |(t, (lora, base))| {
                let (lora, base) = (self.probe.logits(lora)?, self.probe.logits(base)?);
                self.logits("lora", pair, t, &lora, checks);
                self.logits("base", pair, t, &base, checks);
                Ok(published_shift(&base, &lora))
            };
            shifts.push(rows.map(shift).collect::<Result<_>>()?);
        }
        Ok(shifts)
    }

    fn rows(&self, side: &str, pair: usize) -> Vec<usize> {
        if side == "secure" { self.probe.secure_rows(pair) } else { self.probe.vulnerable_rows(pair) }
    }

    /// (pair, index into the stored positions, row of our batch) of every stored position that is no padding.
    fn stored_rows(&self, side: &str) -> Vec<(usize, usize, usize)> {
        let of_pair = |pair: usize| {
            let rows = self.rows(side, pair);
            let place = move |(p, &t): (usize, &usize)| Some((pair, p, *rows.get(t)?));
            self.positions.iter().enumerate().filter_map(place)
        };
        (0..self.pairs).flat_map(of_pair).collect()
    }

    fn hidden(&self, side: &str, checks: &mut Checks) {
        let vectors = self.case.tensor(&format!("hidden/{side}"));
        let norms = self.case.tensor(&format!("hidden/{side}_l2"));
        for tap in 0..self.probe.taps() {
            for (pair, p, row) in self.stored_rows(side) {
                let found = self.probe.tap(tap, row);
                let place = |i| format!("{side} tap {tap} pair {pair} position {} [{i}]", self.positions[p]);
                for (i, &x) in found.iter().enumerate() {
                    let Some(stored) = vectors else { break };
                    let expected = stored.at(&[tap, pair, p, i]);
                    checks.close("hidden", || place(i), x.into(), expected, self.tolerances.hidden);
                }
                if let Some(norms) = norms {
                    let norm = found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    let expected = norms.at(&[tap, pair, p]);
                    let tolerance = self.tolerances.hidden_norm * expected;
                    checks.close("hidden_l2", || place(0), norm, expected, tolerance);
                }
            }
        }
    }

    fn aggregates(&self, side: &str, checks: &mut Checks) {
        let Some(stored) = self.case.tensor(&format!("agg/{side}")) else { return };
        let (found, width) = (self.probe.aggregates(), stored.shape[2]);
        for (pair, p, row) in self.stored_rows(side) {
            for i in 0..width {
                let place = || format!("{side} pair {pair} position {} [{i}]", self.positions[p]);
                let (x, expected) = (found[row * width + i], stored.at(&[pair, p, i]));
                checks.close("agg", place, x.into(), expected, self.tolerances.hidden);
            }
        }
    }

    fn scores(&self, side: &str, checks: &mut Checks) {
        let Some(stored) = self.case.tensor(&format!("scores/{side}")) else { return };
        let found = self.probe.scores();
        for pair in 0..self.pairs {
            for (t, row) in self.rows(side, pair).into_iter().enumerate() {
                let place = || format!("{side} pair {pair} position {t}");
                let expected = stored.at(&[pair, t]);
                checks.close("scores", place, found[row].into(), expected, self.tolerances.scores);
            }
        }
    }

    /// One row of logits against everything that is stored about it.
    fn logits(&self, which: &str, pair: usize, t: usize, found: &[f32], checks: &mut Checks) {
        let place = |i: usize| format!("{which} pair {pair} position {t} [{i}]");
        let tolerance = self.tolerances.logits;
        if let Some(stored) = self.case.tensor(&format!("lse/{which}"))
            && let Some(column) = self.column(stored, t)
        {
            let expected = stored.at(&[pair, column]);
            checks.close("lse", || place(0), log_sum_exp(found), expected, tolerance);
        }
        let Some(p) = self.positions.iter().position(|&at| at == t) else { return };
        if let Some(stored) = self.case.tensor(&format!("logits/{which}")) {
            for (i, &x) in found.iter().enumerate() {
                checks.close("logits", || place(i), x.into(), stored.at(&[pair, p, i]), tolerance);
            }
        }
        let top = |what| self.case.tensor(&format!("top5/{which}_{what}"));
        if let (Some(ids), Some(logits)) = (top("ids"), top("logits")) {
            for rank in 0..ids.shape[2] {
                let id = ids.at(&[pair, p, rank]) as usize;
                let expected = logits.at(&[pair, p, rank]);
                checks.close("top5", || place(id), found[id].into(), expected, tolerance);
            }
        }
    }

    /// Column of position `t` in a tensor that has all positions, or only the chosen ones.
    fn column(&self, stored: &Tensor, t: usize) -> Option<usize> {
        if stored.shape[1] == self.padded { Some(t) } else { self.positions.iter().position(|&at| at == t) }
    }
}

fn log_sum_exp(x: &[f32]) -> f64 {
    let max = x.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v.into()));
    max + x.iter().map(|&v| (f64::from(v) - max).exp()).sum::<f64>().ln()
}

/// `Σ p (log(p + ε) − log(q + ε)) − Σ p (log p − log q)`.
fn published_shift(base: &[f32], lora: &[f32]) -> f64 {
    let (base_lse, lora_lse) = (log_sum_exp(base), log_sum_exp(lora));
    let term = |(&y, &z): (&f32, &f32)| {
        let (p, q) = ((f64::from(y) - base_lse).exp(), (f64::from(z) - lora_lse).exp());
        p * ((PUBLISHED_EPSILON / p).ln_1p() - (PUBLISHED_EPSILON / q).ln_1p())
    };
    base.iter().zip(lora).map(term).filter(|x| x.is_finite()).sum()
}
