//! Dealing pairs to folds so that no function is both learnt from and asked about.

use std::collections::HashMap;

use super::{Deal, ProbeOptions, too_few};
use crate::error::Result;
use crate::train::batch::TokenPair;
use crate::train::schedule::epoch_order;

/// Pairs that share a function go together, and so do both halves of a pair. Groups are shuffled, and each
/// goes to the fold that has the fewest pairs.
pub(super) fn folds(pairs: &[TokenPair], options: &ProbeOptions) -> Result<Deal> {
    options.check()?;
    let groups = groups(pairs);
    if groups.len() < options.folds {
        return Err(too_few(groups.len(), options.folds));
    }
    let (mut fold_of, mut group_of) = (vec![0; pairs.len()], vec![0; pairs.len()]);
    let mut sizes = vec![0; options.folds];
    for group in epoch_order(groups.len(), options.seed, 0) {
        let smallest = (0..sizes.len()).min_by_key(|&fold| sizes[fold]).unwrap_or(0);
        sizes[smallest] += groups[group].len();
        groups[group].iter().for_each(|&pair| (fold_of[pair], group_of[pair]) = (smallest, group));
    }
    Ok(Deal { fold_of, group_of, groups: groups.len() })
}

/// Numbers of the pairs of each group, in the order of their first pairs.
fn groups(pairs: &[TokenPair]) -> Vec<Vec<usize>> {
    let mut first_with: HashMap<&[u32], usize> = HashMap::new();
    let mut parent: Vec<usize> = (0..pairs.len()).collect();
    for (number, pair) in pairs.iter().enumerate() {
        for function in [&pair.secure, &pair.vulnerable] {
            let other = *first_with.entry(function).or_insert(number);
            let (a, b) = (root(&parent, number), root(&parent, other));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); pairs.len()];
    (0..pairs.len()).for_each(|pair| groups[root(&parent, pair)].push(pair));
    groups.retain(|group| !group.is_empty());
    groups
}

fn root(parent: &[usize], mut item: usize) -> usize {
    while parent[item] != item {
        item = parent[item];
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn pair(id: usize, secure: u32, vulnerable: u32) -> TokenPair {
        TokenPair::new(id, vec![secure], vec![vulnerable])
    }

    #[test]
    fn pairs_that_share_a_function_stay_together() {
        let pairs =
            [pair(0, 1, 2), pair(1, 3, 4), pair(2, 5, 1), pair(3, 6, 7), pair(4, 7, 5), pair(5, 8, 9)];
        assert_eq!(groups(&pairs), [vec![0, 2, 3, 4], vec![1], vec![5]]);
        for seed in 0..8 {
            let deal = folds(&pairs, &ProbeOptions { folds: 3, seed, ..ProbeOptions::default() }).unwrap();
            assert_eq!(deal.groups, 3);
            assert!([2, 3, 4].iter().all(|&p| deal.fold_of[p] == deal.fold_of[0]), "{:?}", deal.fold_of);
            assert_ne!(deal.fold_of[1], deal.fold_of[5]);
        }
        let error =
            folds(&pairs, &ProbeOptions { folds: 4, seed: 0, ..ProbeOptions::default() }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("found 3"), "{error}");
    }

    #[test]
    fn folds_are_of_one_size_and_depend_on_the_seed() {
        let pairs: Vec<_> = (0..23).map(|i| pair(i, 2 * i as u32, 2 * i as u32 + 1)).collect();
        let deal = |seed| {
            folds(&pairs, &ProbeOptions { folds: 5, seed, ..ProbeOptions::default() }).unwrap().fold_of
        };
        for fold in 0..5 {
            let size = deal(1).iter().filter(|&&f| f == fold).count();
            assert!((4..=5).contains(&size), "{size}");
        }
        assert_eq!(deal(1), deal(1));
        assert_ne!(deal(1), deal(2));
    }
}
