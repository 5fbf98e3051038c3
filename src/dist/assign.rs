//! Which rank computes which micro-batch. Micro-batches are the same for any number of ranks, only their
//! owners change: the longest goes first to whoever has the least (LPT), so that all are done at about the
//! same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The owner of each micro-batch, by its cost: the rank with the least to do takes the largest that is left.
/// Of equal ranks and of equal micro-batches, the first comes first. `ranks` is at least 1.
pub fn owners(costs: &[u64], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    // Stable, so equal costs stay in order.
    order.sort_by_key(|i| Reverse(costs[*i]));
    let mut loads: BinaryHeap<Reverse<(u64, usize)>> = (0..ranks).map(|rank| Reverse((0, rank))).collect();
    let mut owners = vec![0; costs.len()];
    for i in order {
        let Some(mut least) = loads.peek_mut() else { break };
        let Reverse((load, rank)) = &mut *least;
        *load += costs[i];
        owners[i] = *rank;
    }
    owners
}

/// What each rank has to do.
pub fn loads(costs: &[u64], owners: &[usize], ranks: usize) -> Vec<u64> {
    let mut loads = vec![0; ranks];
    costs.iter().zip(owners).for_each(|(cost, owner)| loads[*owner] += cost);
    loads
}

/// How steps are cut out of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pairs of a step, over all ranks.
    pub step: usize,
    /// Pairs of a micro-batch.
    pub micro_batch: usize,
    /// Ranks in all.
    pub ranks: usize,
}

/// The share of the ranks' time that is spent on computing, from 0 to 1, over an epoch of pairs with these
/// costs in this order: the mean of the loads by the largest of each step.
pub fn balance(pairs: &[u64], shape: Shape) -> f64 {
    let (mut mean, mut largest) = (0.0, 0.0);
    for step in pairs.chunks(shape.step) {
        let costs: Vec<u64> = step.chunks(shape.micro_batch).map(|batch| batch.iter().sum()).collect();
        let loads = loads(&costs, &owners(&costs, shape.ranks), shape.ranks);
        mean += loads.iter().sum::<u64>() as f64 / shape.ranks as f64;
        largest += loads.iter().max().copied().unwrap_or(0) as f64;
    }
    if largest > 0.0 { mean / largest } else { 1.0 }
}

/// The balance that nobody needs to be told of.
pub const GOOD: f64 = 0.95;

/// What is told when ranks wait for each other for much of the time: `step: 16 pairs over 8 ranks, balance 77
/// %; 32 pairs would reach 98 %`. `None` for a good balance.
pub fn advice(pairs: &[u64], shape: Shape) -> Option<String> {
    let found = balance(pairs, shape);
    if found >= GOOD {
        return None;
    }
    let Shape { step, ranks, .. } = shape;
    let mut text = format!("step: {step} pairs over {ranks} ranks, balance {}", percent(found));
    let doubled = std::iter::successors(Some(2 * step), |step| Some(2 * step));
    let mended = doubled
        .take_while(|step| *step <= pairs.len())
        .map(|step| (step, balance(pairs, Shape { step, ..shape })));
    if let Some((step, reached)) = mended.into_iter().find(|(_, balance)| *balance >= GOOD) {
        text += &format!("; {step} pairs would reach {}", percent(reached));
    }
    Some(text)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
