//! Features on one scale: of mean 0 and variance 1 over what is learnt from. States stay as they are; what is
//! computed from them is what it would be on the scale.

/// A feature that varies by less than this share of its size is taken for constant.
const CONSTANT: f64 = 1e-6;

/// Mean and scale of every feature.
pub(super) struct Standard {
    /// Over what is learnt from.
    pub mean: Vec<f32>,
    /// 1 / (standard deviation · √features), so that a row has a length of about 1 whatever the width; 0 for
    /// constants.
    pub scale: Vec<f32>,
}

impl Standard {
    /// Over `rows` of equal length.
    pub fn of(rows: &[&[f32]]) -> Self {
        let width = rows.first().map_or(0, |row| row.len());
        let (mut sum, mut squares) = (vec![0.0f64; width], vec![0.0f64; width]);
        for row in rows {
            for (i, &value) in row.iter().enumerate() {
                sum[i] += f64::from(value);
                squares[i] += f64::from(value) * f64::from(value);
            }
        }
        let count = rows.len().max(1) as f64;
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
        let scale = mean.iter().zip(&squares).map(|(mean, squares)| {
            let deviation = (squares / count - mean * mean).max(0.0).sqrt();
            if deviation > CONSTANT * mean.abs() { 1.0 / (deviation * (width as f64).sqrt()) } else { 0.0 }
        });
        Standard { scale: scale.map(|s| s as f32).collect(), mean: mean.iter().map(|&m| m as f32).collect() }
    }

    /// What [`Self::dot`] takes for `weights` on the scale.
    pub fn weights(&self, weights: &[f64]) -> Vec<f32> {
        weights.iter().zip(&self.scale).map(|(&w, &scale)| w as f32 * scale).collect()
    }

    /// The product of weights and a state less the mean. Sixteen sums side by side, which the compiler keeps
    /// in vector registers.
    pub fn dot(&self, row: &[f32], weights: &[f32]) -> f32 {
        let mut sums = [0.0f32; 16];
        let (rows, means) = (row.chunks_exact(16), self.mean.chunks_exact(16));
        let weights = weights.chunks_exact(16);
        let rest = rows.remainder().iter().zip(means.remainder()).zip(weights.remainder());
        let rest: f32 = rest.map(|((x, mean), w)| (x - mean) * w).sum();
        for ((x, mean), w) in rows.zip(means).zip(weights) {
            sums.iter_mut().zip(x.iter().zip(mean).zip(w)).for_each(|(sum, ((x, m), w))| *sum += (x - m) * w);
        }
        sums.iter().sum::<f32>() + rest
    }

    /// Adds `factor` times a state less the mean to `sums`.
    pub fn add(&self, factor: f32, row: &[f32], sums: &mut [f32]) {
        sums.iter_mut()
            .zip(row.iter().zip(&self.mean))
            .for_each(|(sum, (x, mean))| *sum += factor * (x - mean));
    }
}
