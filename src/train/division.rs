//! Which rank computes which micro-batch, and how what they find comes together.

use crate::dist::{World, assign};
use crate::error::Result;
use crate::train::batch::TokenPair;

/// The micro-batches of a step or of an evaluation that each rank computes: `[micro-batches]` ranks.
pub(super) fn owners(micro_batches: &[Vec<&TokenPair>], world: &World) -> Vec<usize> {
    let costs: Vec<u64> =
        micro_batches.iter().map(|pairs| pairs.iter().map(|pair| pair.cost()).sum()).collect();
    assign::owners(&costs, world.ranks())
}

/// Adds up `figures`, each of which is 0 on all ranks but one. Their bits come through, whatever order they
/// are added in.
pub(super) fn gather(world: &mut World, phase: &str, figures: &mut [f64]) -> Result<()> {
    let mut bits: Vec<i64> = figures.iter().copied().map(to_bits).collect();
    world.all_reduce(phase, &mut bits)?;
    figures.iter_mut().zip(bits).for_each(|(figure, bits)| *figure = from_bits(bits));
    Ok(())
}

/// A figure as something that 0 can be added to.
pub(super) fn to_bits(figure: f64) -> i64 {
    figure.to_bits().cast_signed()
}

/// The figure of [`to_bits`].
pub(super) fn from_bits(bits: i64) -> f64 {
    f64::from_bits(bits.cast_unsigned())
}
