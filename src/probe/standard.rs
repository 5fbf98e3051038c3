//! Features on one scale: of mean 0 and variance 1 over what is learnt from.

use super::PairStates;

/// A feature that varies by less than this share of its size is taken for constant.
const CONSTANT: f64 = 1e-6;

/// Mean and scale of every feature.
pub(super) struct Standard {
    mean: Vec<f32>,
    /// 1 / (standard deviation · √features), so that a row has a length of about 1 whatever the width; 0 for constants.
    scale: Vec<f32>,
}

impl Standard {
    /// Over the functions of `pairs`.
    pub fn of(states: &PairStates, layer: usize, pairs: &[usize]) -> Self {
        let width = states.width();
        let (mut sum, mut squares) = (vec![0.0f64; width], vec![0.0f64; width]);
        for state in pairs.iter().flat_map(|&pair| states.pair(layer, pair)) {
            for (i, &value) in state.iter().enumerate() {
                sum[i] += f64::from(value);
                squares[i] += f64::from(value) * f64::from(value);
            }
        }
        let count = (2 * pairs.len()).max(1) as f64;
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
        let scale = mean.iter().zip(&squares).map(|(mean, squares)| {
            let deviation = (squares / count - mean * mean).max(0.0).sqrt();
            if deviation > CONSTANT * mean.abs() { 1.0 / (deviation * (width as f64).sqrt()) } else { 0.0 }
        });
        Standard { scale: scale.map(|s| s as f32).collect(), mean: mean.iter().map(|&m| m as f32).collect() }
    }

    /// A state on this scale.
    pub fn apply(&self, state: &[f32]) -> Vec<f32> {
        state.iter().zip(&self.mean).zip(&self.scale).map(|((x, mean), scale)| (x - mean) * scale).collect()
    }

    /// The functions of `pairs`, `[2 · pairs, width]`, and 1 for a secure one, −1 for a vulnerable one.
    pub fn rows(&self, states: &PairStates, layer: usize, pairs: &[usize]) -> (Vec<f32>, Vec<f64>) {
        let rows =
            pairs.iter().flat_map(|&pair| states.pair(layer, pair)).flat_map(|state| self.apply(state));
        (rows.collect(), pairs.iter().flat_map(|_| [1.0, -1.0]).collect())
    }
}
