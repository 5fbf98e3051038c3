//! Assignments of micro-batches for up to 1,024 ranks, as pure functions.

use std::time::{Duration, Instant};

use deepguard::dist::assign::{GOOD, Shape, advice, balance, loads, owners};
use deepguard::ops::philox::philox;

use super::sven_lengths::SVEN_LENGTHS;

/// Costs of `n` pairs: SVEN's, in a new order every epoch.
fn pairs(n: usize) -> Vec<u64> {
    let cost =
        |(secure, vulnerable, shared): &(usize, usize, usize)| (3 * secure + vulnerable - shared) as u64;
    let costs: Vec<u64> = SVEN_LENGTHS.iter().map(cost).collect();
    let of_epoch = |epoch: u32| {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by_key(|i| philox(9, [*i as u32, epoch, 0, 0])[0]);
        order.into_iter().map(|i| costs[i]).collect::<Vec<_>>()
    };
    (0..).flat_map(of_epoch).take(n).collect()
}

#[test]
fn the_longest_goes_to_whoever_has_least_and_ties_to_the_first() {
    assert_eq!(owners(&[3, 9, 5, 5, 2], 2), [0, 0, 1, 1, 1]);
    assert_eq!(owners(&[4, 4, 4, 4, 4], 3), [0, 1, 2, 0, 1]);
    assert_eq!(owners(&[7, 8], 4), [1, 0]);
    assert_eq!(owners(&[1, 2, 3], 1), [0, 0, 0]);
    assert!(owners(&[], 3).is_empty());
    // Nothing to do is done by somebody.
    assert_eq!(owners(&[0, 0], 2), [0, 0]);
}

#[test]
fn every_pair_is_computed_once_and_ranks_are_done_together() {
    let data = pairs(8192);
    for ranks in [1, 2, 3, 8, 64, 500, 1024] {
        for step in [16, 128, 4096, 8192] {
            let costs = &data[..step];
            let timed = || {
                let began = Instant::now();
                (owners(costs, ranks), began.elapsed())
            };
            // The best of several: others work on this machine, too.
            let (owners, took) = (0..5).map(|_| timed()).min_by_key(|(_, took)| *took).unwrap();
            // An owner each, so every pair is computed once, and in the same micro-batches as by one rank.
            assert!(owners.len() == step && owners.iter().all(|owner| *owner < ranks));
            let loads = loads(costs, &owners, ranks);
            assert_eq!(loads.iter().sum::<u64>(), costs.iter().sum::<u64>());
            let mean = loads.iter().sum::<u64>() as f64 / ranks as f64;
            let largest = *loads.iter().max().unwrap() as f64;
            if step >= 4 * ranks {
                assert!(largest <= 1.02 * mean, "{step} pairs over {ranks}: {}", largest / mean);
            }
            assert!(took < Duration::from_millis(5), "{step} pairs over {ranks}: {took:?}");
        }
    }
}

#[test]
fn longest_first_beats_taking_turns() {
    let data = pairs(4096);
    for (ranks, step) in [(8, 16), (8, 32), (64, 256)] {
        let shape = Shape { step, micro_batch: 1, ranks };
        let in_turn: f64 = {
            let (mut mean, mut largest) = (0.0, 0.0);
            for costs in data.chunks(step) {
                let owners: Vec<usize> = (0..costs.len()).map(|i| i % ranks).collect();
                let loads = loads(costs, &owners, ranks);
                mean += loads.iter().sum::<u64>() as f64 / ranks as f64;
                largest += *loads.iter().max().unwrap() as f64;
            }
            mean / largest
        };
        assert!(
            balance(&data, shape) > 1.2 * in_turn,
            "{step} pairs over {ranks}: {} {in_turn}",
            balance(&data, shape)
        );
    }
}

/// The figures of the design, which were measured with another tokenizer.
#[test]
fn the_balance_of_svens_lengths_is_what_was_planned_with() {
    let data = pairs(8192);
    for (ranks, step, planned) in [(8, 16, 0.77), (8, 32, 0.98), (8, 128, 0.999), (1024, 4096, 0.991)] {
        let found = balance(&data, Shape { step, micro_batch: 1, ranks });
        assert!((found - planned).abs() < 0.03, "{step} pairs over {ranks}: {found}, planned with {planned}");
    }
}

#[test]
fn a_bad_balance_is_told_with_what_mends_it() {
    let data = pairs(1024);
    let shape = Shape { step: 16, micro_batch: 1, ranks: 8 };
    let text = advice(&data, shape).unwrap();
    let share = |step| format!("{:.0} %", 100.0 * balance(&data, Shape { step, ..shape }));
    let expected =
        format!("step: 16 pairs over 8 ranks, balance {}; 32 pairs would reach {}", share(16), share(32));
    assert_eq!(text, expected);
    assert!(balance(&data, shape) < GOOD && balance(&data, Shape { step: 32, ..shape }) >= GOOD);
    assert_eq!(advice(&data, Shape { step: 64, ..shape }), None);
    assert_eq!(advice(&data, Shape { ranks: 1, ..shape }), None);
    // Where nothing mends it, nothing is promised.
    let text = advice(&data[..20], Shape { step: 16, micro_batch: 4, ranks: 8 }).unwrap();
    assert!(text.starts_with("step: 16 pairs over 8 ranks, balance ") && !text.contains(';'), "{text}");
}
