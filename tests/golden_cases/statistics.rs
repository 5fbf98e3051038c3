//! Token security statistics against sums of f32 hundredths.

use deepguard::guard::TokenSecurityStats;

use crate::golden_cases::case::{Case, Result, Tensor};
use crate::golden_cases::checks::Checks;

/// Checks `stats/after_<k>` and `stats/after_<k>_then_swapped`, or the ids and values of all that are not
/// zero after one batch.
pub fn check(case: &Case, checks: &mut Checks) -> Result<()> {
    checks.variant = "statistics".into();
    for (name, stored) in case.tensors.iter().filter(|(name, _)| name.starts_with("stats/")) {
        let Some((batches, swapped)) = schedule(name) else { continue };
        if stored.is_integer || stored.shape.len() != 1 {
            continue;
        }
        let counted = Counted::new(case, stored.values.len(), batches, swapped)?;
        compare(name, &counted, stored, checks);
    }
    sparse(case, checks)
}

/// A vector of ids and one of values, whatever they are called.
fn sparse(case: &Case, checks: &mut Checks) -> Result<()> {
    let vectors = || {
        let named = case.tensors.iter().filter(|(name, _)| name.starts_with("stats"));
        named.map(|(_, tensor)| tensor).filter(|tensor| tensor.shape.len() == 1)
    };
    let Some(ids) = vectors().find(|t| t.is_integer) else { return Ok(()) };
    let Some(values) = vectors().find(|t| !t.is_integer && t.shape == ids.shape) else { return Ok(()) };
    let largest =
        |side| -> Result<u32> { Ok(case.padded_rows(side)?.concat().into_iter().max().unwrap_or(0)) };
    let vocab_size = largest("secure")?.max(largest("vulnerable")?) as usize + 1;
    let counted = Counted::new(case, vocab_size, 1, false)?;
    let mut expected = vec![0.0; vocab_size];
    ids.ids().iter().zip(&values.values).for_each(|(&id, &value)| expected[id as usize] = value);
    for (token, (found, expected)) in counted.stats.values().into_iter().zip(expected).enumerate() {
        let place = || format!("token {token}");
        checks.close("stats", place, found.into(), expected, counted.tolerance(token));
    }
    Ok(())
}

/// Batches of `stats/after_3_then_swapped`, and whether one with the two sides exchanged follows.
fn schedule(name: &str) -> Option<(usize, bool)> {
    let rest = name.strip_prefix("stats/after_")?;
    match rest.strip_suffix("_then_swapped") {
        Some(count) => Some((count.parse().ok()?, true)),
        None => Some((rest.parse().ok()?, false)),
    }
}

/// Statistics after some batches, and how often each token occurred in them.
pub struct Counted {
    pub stats: TokenSecurityStats,
    occurrences: Vec<usize>,
}

impl Counted {
    pub fn new(case: &Case, vocab_size: usize, batches: usize, swapped: bool) -> Result<Self> {
        let real = |side| -> Result<Vec<u32>> {
            let tokens = case.padded_rows(side)?.concat();
            Ok(tokens.into_iter().filter(|&t| Some(t) != case.pad_token()).collect())
        };
        let (secure, vulnerable) = (real("secure")?, real("vulnerable")?);
        let mut counted =
            Counted { stats: TokenSecurityStats::new(vocab_size), occurrences: vec![0; vocab_size] };
        (0..batches).for_each(|_| counted.add(&vulnerable, &secure));
        if swapped {
            counted.add(&secure, &vulnerable);
        }
        Ok(counted)
    }

    fn add(&mut self, vulnerable: &[u32], secure: &[u32]) {
        self.stats.update(vulnerable.iter().copied(), secure.iter().copied());
        vulnerable.iter().chain(secure).for_each(|&t| self.occurrences[t as usize] += 1);
    }

    /// The stored value of a token is a sum of rounded hundredths.
    pub fn tolerance(&self, token: usize) -> f64 {
        1e-6 * self.occurrences[token] as f64
    }
}

fn compare(name: &str, counted: &Counted, stored: &Tensor, checks: &mut Checks) {
    for (token, (found, &expected)) in counted.stats.values().into_iter().zip(&stored.values).enumerate() {
        let place = || format!("{name} token {token}");
        checks.close("stats", place, found.into(), expected, counted.tolerance(token));
    }
}

/// Compares statistics gathered in another way, while training, with `stats/after_<batches>`.
pub fn compare_trained(
    case: &Case,
    found: &TokenSecurityStats,
    batches: usize,
    checks: &mut Checks,
) -> Result<()> {
    let Some(stored) = case.tensor(&format!("stats/after_{batches}")) else { return Ok(()) };
    let counted = Counted::new(case, stored.values.len(), batches, false)?;
    for (token, (found, &expected)) in found.values().into_iter().zip(&stored.values).enumerate() {
        let place = || format!("token {token} after {batches} steps");
        checks.close("stats while training", place, found.into(), expected, counted.tolerance(token));
    }
    Ok(())
}
