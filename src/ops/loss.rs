//! Cross-entropy and KL divergence on a chunk of logits, with their gradient (METHOD §6).

use super::contract::{expect_len, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Refuses rows of no logits, and fewer results than `rows`.
pub(crate) fn check(rows: usize, [nll, kl, z, kl_mask]: [usize; 4], y: Option<usize>) -> Result<()> {
    const OP: &str = "cross_entropy_kl";
    expect_len(OP, "nll", nll, rows)?;
    expect_len(OP, "kl", kl, rows)?;
    expect_len(OP, "kl_mask", kl_mask, rows)?;
    expect_len(OP, "z", z, rows)?;
    expect_len(OP, "y", y.unwrap_or(z), z)?;
    match rows == 0 || z.is_multiple_of(rows) {
        true => Ok(()),
        false => Err(refused(OP, format!("z: expected {rows} rows of one width, found {z} elements"))),
    }
}

/// Weights of the losses of a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadWeights {
    /// Factor of the cross-entropy of every row that has a target: 1 / number of targets.
    pub cross_entropy: f32,
    /// Factor of the KL divergence of every row that counts: weight / number of rows, or 0 where clamped.
    pub kl: f32,
}

/// The two logit losses.
pub trait Loss: Device {
    /// `nll = lse_z − z[target]`, `kl = Σ p_y (y − z) − (lse_y − lse_z)`, and z becomes
    /// `dz = (w_ce + w_kl) softmax(z) − w_ce onehot − w_kl softmax(y)`, each term only where the row has it.
    ///
    /// nll, kl `[rows]` (0 where the row has no such term); z `[rows, vocab_size]` logits with adapters; y
    /// the same without, overwritten too, `None` when no KL is wanted; targets `[rows]`, −1 for none, and an
    /// error beyond the row; kl_mask `[rows]`, 0 or 1.
    #[allow(clippy::too_many_arguments)]
    fn cross_entropy_kl(
        &self,
        nll: Mut<'_, Self, f32>,
        kl: Mut<'_, Self, f32>,
        z: Mut<'_, Self, Self::Act>,
        y: Option<Mut<'_, Self, Self::Act>>,
        targets: Ref<'_, Self, i32>,
        kl_mask: Ref<'_, Self, f32>,
        weights: HeadWeights,
    );
}
