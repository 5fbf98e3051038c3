//! Token security statistics (METHOD §7): how often a token stands in secure rather than vulnerable code.

/// One occurrence moves a token by 1/100.
const UNITS: i32 = 100;

/// A vector in [−1, 1] over the vocabulary, kept as integers so that it is exact: hundredths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSecurityStats {
    hundredths: Vec<i32>,
}

impl TokenSecurityStats {
    /// Statistics that are all zero.
    pub fn new(vocab_size: usize) -> Self {
        TokenSecurityStats { hundredths: vec![0; vocab_size] }
    }

    /// Statistics from saved values in [−1, 1].
    pub fn from_values(values: &[f32]) -> Self {
        let units = |&v: &f32| ((v * UNITS as f32).round() as i32).clamp(-UNITS, UNITS);
        TokenSecurityStats { hundredths: values.iter().map(units).collect() }
    }

    /// The values in [−1, 1], `[vocab_size]`.
    pub fn values(&self) -> Vec<f32> {
        self.hundredths.iter().map(|&h| h as f32 / UNITS as f32).collect()
    }

    /// One training batch: −0.01 for each token of the vulnerable functions, +0.01 for each of the secure ones, then
    /// clamped. A shared prefix cancels, so it may be left out of both. Tokens outside the vocabulary do not count.
    pub fn update(
        &mut self,
        vulnerable: impl IntoIterator<Item = u32>,
        secure: impl IntoIterator<Item = u32>,
    ) {
        let mut touched = Vec::new();
        let mut shift = |token: u32, by: i32| {
            if let Some(value) = self.hundredths.get_mut(token as usize) {
                *value += by;
                touched.push(token as usize);
            }
        };
        vulnerable.into_iter().for_each(|t| shift(t, -1));
        secure.into_iter().for_each(|t| shift(t, 1));
        for t in touched {
            self.hundredths[t] = self.hundredths[t].clamp(-UNITS, UNITS);
        }
    }

    /// Values divided by the largest magnitude, `stats / (max|stats| + 1e-8)` (METHOD §8).
    pub fn normalized(&self) -> Vec<f32> {
        let values = self.values();
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        values.iter().map(|v| v / (largest + 1e-8)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_clamps_once_per_batch() {
        let mut stats = TokenSecurityStats::new(3);
        stats.update([0, 0, 1], [1, 1, 9]);
        assert_eq!(stats.values(), [-0.02, 0.01, 0.0]);
        // Beyond −1 and back inside one batch is not clamped on the way.
        stats.update(vec![0; 150], vec![0; 60]);
        assert_eq!(stats.values()[0], -0.92);
        stats.update(vec![0; 150], []);
        assert_eq!(stats.values()[0], -1.0);
        assert_eq!(TokenSecurityStats::from_values(&stats.values()), stats);
    }
}
