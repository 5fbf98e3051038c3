//! Learning rate and data order.

use crate::ops::philox::philox;

/// Marks the counters of the data order: no dropout site has it.
const ORDER_SITE: u32 = u32::MAX - 2;

/// Linear warm-up, then linear decay. The first step already learns and the last one still does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearSchedule {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup_steps: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
}

impl LinearSchedule {
    /// The learning rate of step `step`, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let left = self.total_steps.saturating_sub(step) as f64;
        self.peak * left / (self.total_steps - self.warmup_steps).max(1) as f64
    }
}

/// The order of `n` items in an epoch: a Fisher–Yates shuffle that depends on seed and epoch only.
pub fn epoch_order(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let [low, high, ..] = philox(seed, [i as u32, 0, ORDER_SITE, epoch as u32]);
        let random = u64::from(low) | u64::from(high) << 32;
        // Multiply-shift: uniform up to a bias of n / 2⁶⁴.
        let j = (u128::from(random) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_and_falls() {
        let s = LinearSchedule { peak: 1.0, warmup_steps: 2, total_steps: 6 };
        let lrs: Vec<f64> = (0..6).map(|i| s.lr(i)).collect();
        assert_eq!(lrs, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
    }

    #[test]
    fn orders_are_permutations_that_change_with_the_epoch() {
        let first = epoch_order(50, 1, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(first, epoch_order(50, 1, 0));
        assert_ne!(first, epoch_order(50, 1, 1));
        assert_ne!(first, epoch_order(50, 2, 0));
        // Every item comes first about equally often.
        let mut counts = [0; 5];
        (0..5000).for_each(|epoch| counts[epoch_order(5, 3, epoch)[0]] += 1);
        assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}
