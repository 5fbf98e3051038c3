//! Cross-entropy and KL with their gradient, as written in `ops/loss.rs`.

use super::{Cpu, math, parallel};
use crate::error::Result;
use crate::ops::contract::refused;
use crate::ops::loss::{HeadWeights, Loss, check};
use crate::ops::{Mut, Ref};

/// Losses of one row: negative log-likelihood and KL divergence.
struct RowLoss {
    nll: f32,
    kl: f32,
}

/// One row with both terms; z becomes its gradient, y is overwritten.
fn with_reference(z: &mut [f32], y: &mut [f32], target: Option<usize>, weights: HeadWeights) -> RowLoss {
    let target_logit = target.map(|t| z[t]);
    let (z_max, y_max) = (math::max(z), math::max(y));
    let (sum_z, sum_y, cross) = math::exp_pair(z, z_max, y, y_max);
    let (lse_z, lse_y) = (z_max + sum_z.ln(), y_max + sum_y.ln());
    let cross_entropy = if target.is_some() { weights.cross_entropy } else { 0.0 };
    math::combine(z, (cross_entropy + weights.kl) / sum_z, y, weights.kl / sum_y);
    subtract_onehot(z, target, cross_entropy);
    RowLoss { nll: target_logit.map_or(0.0, |logit| lse_z - logit), kl: cross / sum_y - (lse_y - lse_z) }
}

/// One row with at most the cross-entropy; z becomes its gradient.
fn without_reference(z: &mut [f32], target: Option<usize>, cross_entropy: f32) -> RowLoss {
    let Some(t) = target else {
        z.fill(0.0);
        return RowLoss { nll: 0.0, kl: 0.0 };
    };
    let logit = z[t];
    let z_max = math::max(z);
    let sum = math::exp_in_place(z, 1.0, z_max);
    math::scale(z, cross_entropy / sum);
    subtract_onehot(z, target, cross_entropy);
    RowLoss { nll: z_max + sum.ln() - logit, kl: 0.0 }
}

fn subtract_onehot(z: &mut [f32], target: Option<usize>, weight: f32) {
    if let Some(t) = target {
        z[t] -= weight;
    }
}

/// Refuses targets beyond a row.
fn check_targets(targets: &[i32], vocab_size: usize) -> Result<()> {
    let beyond = |&(_, &target): &(usize, &i32)| usize::try_from(target).is_ok_and(|t| t >= vocab_size);
    match targets.iter().enumerate().find(beyond) {
        Some((row, target)) => {
            let what = format!("targets[{row}]: expected less than {vocab_size}, found {target}");
            Err(refused("cross_entropy_kl", what))
        }
        None => Ok(()),
    }
}

impl Loss for Cpu {
    fn cross_entropy_kl(
        &self,
        nll: Mut<'_, Self, f32>,
        kl: Mut<'_, Self, f32>,
        z: Mut<'_, Self, f32>,
        y: Option<Mut<'_, Self, f32>>,
        targets: Ref<'_, Self, i32>,
        w_ce: Ref<'_, Self, f32>,
        w_kl: Ref<'_, Self, f32>,
        weights: HeadWeights,
    ) {
        let lengths = [nll.len(), kl.len(), z.len(), w_ce.len(), w_kl.len()];
        let checked = check(targets.len(), lengths, y.as_ref().map(Mut::len))
            .and_then(|()| check_targets(targets.as_slice(), z.len() / targets.len().max(1)));
        if !self.accepts(checked) {
            return;
        }
        let (nll, kl, targets) = (nll.into_slice(), kl.into_slice(), targets.as_slice());
        let (w_ce, w_kl) = (w_ce.as_slice(), w_kl.as_slice());
        let rows = targets.len();
        let z = z.into_slice();
        let vocab_size = z.len() / rows.max(1);
        let y: &mut [f32] = y.map_or(&mut [], |y| y.into_slice());
        let references =
            y.chunks_exact_mut(vocab_size.max(1)).map(Some).chain(std::iter::repeat_with(|| None));
        let rows = nll.iter_mut().zip(kl).zip(z.chunks_exact_mut(vocab_size.max(1))).zip(references);
        parallel::items(&mut rows.collect::<Vec<_>>(), |i, (((nll, kl), z), y)| {
            let target = usize::try_from(targets[i]).ok();
            let weights =
                HeadWeights { cross_entropy: weights.cross_entropy * w_ce[i], kl: weights.kl * w_kl[i] };
            let loss = match y {
                Some(y) if w_kl[i] != 0.0 => with_reference(z, y, target, weights),
                _ => without_reference(z, target, weights.cross_entropy),
            };
            (**nll, **kl) = (loss.nll, loss.kl);
        });
    }
}
