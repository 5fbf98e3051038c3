//! Cross-entropy and KL divergence on a chunk of logits, with their gradient (METHOD §6).

use super::contract::{expect_len, refused};
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Refuses rows of no logits, and fewer results than `rows`.
pub(crate) fn check(rows: usize, [nll, kl, z, w_ce, w_kl]: [usize; 5], y: Option<usize>) -> Result<()> {
    const OP: &str = "cross_entropy_kl";
    expect_len(OP, "nll", nll, rows)?;
    expect_len(OP, "kl", kl, rows)?;
    expect_len(OP, "w_ce", w_ce, rows)?;
    expect_len(OP, "w_kl", w_kl, rows)?;
    expect_len(OP, "z", z, rows)?;
    expect_len(OP, "y", y.unwrap_or(z), z)?;
    match rows == 0 || z.is_multiple_of(rows) {
        true => Ok(()),
        false => Err(refused(OP, format!("z: expected {rows} rows of one width, found {z} elements"))),
    }
}

/// Factors of the losses of all rows, beside their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadWeights {
    /// Factor of the cross-entropy of every row that has a target, such as 1 / number of targets.
    pub cross_entropy: f32,
    /// Factor of the KL divergence of every row that counts, such as weight / number of rows, or 0 where
    /// clamped.
    pub kl: f32,
}

/// The two logit losses.
pub trait Loss: Device {
    /// `nll = lse_z − z[target]`, `kl = Σ p_y (y − z) − (lse_y − lse_z)`, and z becomes
    /// `dz = (a + b) softmax(z) − a onehot − b softmax(y)`, each term only where the row has it, with
    /// `a = cross_entropy · w_ce[row]` and `b = kl · w_kl[row]`.
    ///
    /// nll, kl `[rows]` (0 where the row has no such term), unweighted; z `[rows, vocab_size]` logits with
    /// adapters; y the same without, overwritten too, `None` when no KL is wanted; targets `[rows]`, −1 for
    /// none, and an error beyond the row; w_ce, w_kl `[rows]`, of either sign. A row with `w_kl` 0 has no KL
    /// divergence.
    #[allow(clippy::too_many_arguments)]
    fn cross_entropy_kl(
        &self,
        nll: Mut<'_, Self, f32>,
        kl: Mut<'_, Self, f32>,
        z: Mut<'_, Self, Self::Act>,
        y: Option<Mut<'_, Self, Self::Act>>,
        targets: Ref<'_, Self, i32>,
        w_ce: Ref<'_, Self, f32>,
        w_kl: Ref<'_, Self, f32>,
        weights: HeadWeights,
    );
}
