use deepguard::ops::Backend;
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::sample::{Adjustment, Sampling, mark};

use super::bench::Bench;

pub fn guide<B: Backend>(backend: &B) {
    let (samples, vocab) = (3, 21);
    let mut bench = Bench::new(backend);
    let mut logits = bench.act(samples * vocab, 2.0);
    let (stats, strength) = (bench.f32(vocab, 1.0), bench.f32(samples, 1.0));
    backend.guide(logits.view_mut(), stats.view(), strength.view(), 0.75);
    let guided = |(i, x): (usize, &f64)| {
        let s = stats.host[i % vocab];
        x + s * strength.host[i / vocab] + 0.75 * s.max(0.0)
    };
    let expected: Vec<f64> = logits.host.iter().enumerate().map(guided).collect();
    bench.check("logits", &logits.buffer, &expected);
}

/// The penalty divides what is positive and multiplies what is negative, of tokens seen; −∞ goes to those
/// suppressed.
pub fn adjust<B: Backend>(backend: &B) {
    const MARKS: [u8; 7] =
        [0, 0, mark::SEEN, 0, mark::SUPPRESSED, mark::SUPPRESSED_FIRST, mark::SEEN | mark::SUPPRESSED];
    // Widths that are a multiple of 8 and that are not, with marks everywhere and with none but the last
    // tokens'.
    for (samples, vocab, marked) in [(3, 21, true), (2, 1024, false), (4, 2056, true), (1, 7, true)] {
        // The last column, none, any, and an id just beyond.
        let last: Vec<u32> = [vocab as u32 - 1, u32::MAX, 3, vocab as u32][..samples].to_vec();
        let before: Vec<u8> =
            (0..samples * vocab).map(|i| if marked { MARKS[i * 31 % 7] } else { 0 }).collect();
        let mut after = before.clone();
        for (row, &token) in last.iter().enumerate().filter(|(_, token)| (**token as usize) < vocab) {
            after[row * vocab + token as usize] |= mark::SEEN;
        }
        for first in [true, false] {
            let mut bench = Bench::new(backend);
            let mut logits = bench.act(samples * vocab, 4.0);
            let (mut marks, ids) = (bench.integers(&before), bench.integers(&last));
            let adjustment = Adjustment { repetition_penalty: 1.5, first };
            backend.adjust(logits.view_mut(), marks.view_mut(), ids.view(), adjustment);
            bench.finish();
            assert_eq!(backend.to_host(marks.view()), after, "marks of {samples} × {vocab}");
            let found = backend.download_act(logits.buffer.view());
            for (i, ((&found, &x), bits)) in found.iter().zip(&logits.host).zip(&after).enumerate() {
                let suppressed =
                    bits & mark::SUPPRESSED != 0 || (first && bits & mark::SUPPRESSED_FIRST != 0);
                let expected = match (suppressed, bits & mark::SEEN != 0) {
                    (true, _) => f64::NEG_INFINITY,
                    (false, true) if x < 0.0 => x * 1.5,
                    (false, true) => x / 1.5,
                    (false, false) => x,
                };
                // One rounding to the type of the logits.
                let tolerance = if expected == x || suppressed { 0.0 } else { expected.abs() / 256.0 };
                let found = f64::from(found);
                let close = found == expected || (found - expected).abs() <= tolerance;
                assert!(close, "{samples} × {vocab}, first {first}, {i}: found {found}, expected {expected}");
            }
        }
    }
}

/// Temperature 0 and `top_k` 1 take the largest logit, the first of equals; a NaN is reported.
pub fn greedy<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let logits = bench.act_of(&[1.0, 3.0, 3.0, -4.0, 0.0, f64::NAN, 9.0, 1.0, -1.0, -2.0, -3.0, -4.0]);
    let mut tokens = bench.integers(&[7u32; 3]);
    let numbers = bench.integers(&[0u32, 1, 2]);
    for (temperature, top_k) in [(0.0, 0), (0.8, 1)] {
        let sampling = Sampling::new(temperature, 1.0, top_k, 1);
        let mut positions = bench.integers(&[5u32, 6, 0]);
        let (tokens_mut, positions_mut) = (tokens.view_mut(), positions.view_mut());
        backend.sample(tokens_mut, None, positions_mut, logits.view(), numbers.view(), sampling);
        assert_eq!(backend.to_host(tokens.view()), [1, u32::MAX, 0]);
        assert_eq!(backend.to_host(positions.view()), [6, 7, 1]);
    }
}

/// A row's draw depends on seed, number and position, not on its place, and stays inside the nucleus.
pub fn draws<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let row = [2.0, 1.9, -8.0, 1.8, -9.0];
    let logits = bench.act_of(&row.repeat(200));
    let drawn = |numbers: &[u32], seed: u64, position: u32| {
        let mut tokens = bench.integers(&[0u32; 200]);
        let sampling = Sampling::new(1.0, 0.95, 50, seed);
        let (numbers, mut positions) = (bench.integers(numbers), bench.integers(&[position; 200]));
        let (tokens_mut, positions_mut) = (tokens.view_mut(), positions.view_mut());
        backend.sample(tokens_mut, None, positions_mut, logits.view(), numbers.view(), sampling);
        assert_eq!(backend.to_host(positions.view()), [position + 1; 200]);
        backend.to_host(tokens.view())
    };
    let ascending: Vec<u32> = (0..200).collect();
    let draw = |seed: u64, position: u32| drawn(&ascending, seed, position);
    let descending: Vec<u32> = (0..200).rev().collect();
    let mut turned = drawn(&descending, 1, 0);
    turned.reverse();
    assert_eq!(turned, draw(1, 0));
    let first = draw(1, 0);
    assert_eq!(first, draw(1, 0));
    assert!(first != draw(2, 0) && first != draw(1, 1));
    for token in [0, 1, 3] {
        let count = first.iter().filter(|&&t| t == token).count();
        assert!((40..100).contains(&count), "token {token} drawn {count} times of 200");
    }
    assert!(first.iter().all(|t| [0, 1, 3].contains(t)));
}

/// Counters of the draws, as src/ops/sample.rs has them.
const SITE: u32 = u32::MAX - 3;

/// The token by a sort of everything, in f64, and its probability among those that are kept.
fn reference(logits: &[f64], s: Sampling, random: f64) -> (u32, f64) {
    let mut tokens: Vec<usize> = (0..logits.len()).collect();
    tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if s.top_k > 0 {
        tokens.truncate(s.top_k);
    }
    let largest = logits[tokens[0]];
    let weight = |t: &usize| ((logits[*t] - largest) / f64::from(s.temperature)).exp();
    let weights: Vec<f64> = tokens.iter().map(weight).collect();
    let limit = f64::from(s.top_p) * weights.iter().sum::<f64>();
    let mut before = 0.0;
    let kept = weights.iter().take_while(|&w| {
        let keep = before < limit;
        before += w;
        keep
    });
    let kept = kept.count().max(1);
    let mass = weights[..kept].iter().sum::<f64>();
    let mut sum = 0.0;
    let drawn = weights[..kept].iter().position(|w| {
        sum += w;
        random * mass < sum
    });
    let drawn = drawn.unwrap_or(kept - 1);
    (tokens[drawn] as u32, weights[drawn] / mass)
}

/// Every draw is the one that a sort gives for the same random number, up to rounding in the sums.
pub fn draws_of_a_sort<B: Backend>(backend: &B) {
    // Temperature, top_p, top_k: few candidates, many, all; cuts within ties.
    const SAMPLINGS: [(f32, f32, usize); 10] = [
        (1.0, 1.0, 0),
        (1.0, 0.9, 0),
        (0.7, 0.95, 50),
        (100.0, 1.0, 0),
        (100.0, 0.5, 700),
        (0.01, 0.99, 0),
        (1.0, 1.0, 400),
        (1.0, 0.3, 999),
        (0.8, 0.0, 0),
        (1.0, 0.99, 1),
    ];
    // Vocabulary, rows, steps between logits; equal ones are frequent, and everything may be equal.
    const ROWS: [(usize, usize, f64); 6] = [
        (300, 8, 0.5),
        (1000, 8, 0.25),
        (1000, 4, 100.0),
        (5003, 6, 1e-3),
        (5003, 6, 0.5),
        (90_001, 2, 0.125),
    ];
    for (vocab, rows, step) in ROWS {
        let mut bench = Bench::new(backend);
        let mut values = bench.values(rows * vocab, 6.0);
        for (i, value) in values.iter_mut().enumerate() {
            *value = if i % 17 == 3 { f64::NEG_INFINITY } else { (*value / step).trunc() * step };
        }
        let logits = bench.act_of(&values);
        let (mut tokens, mut probabilities) = (bench.integers(&vec![0u32; rows]), bench.f32(rows, 1.0));
        let numbers = bench.integers(&(0..rows as u32).collect::<Vec<_>>());
        // Each draw moves them on.
        let mut positions = bench.integers(&vec![0u32; rows]);
        for (position, (temperature, top_p, top_k)) in SAMPLINGS.into_iter().enumerate() {
            let sampling = Sampling::new(temperature, top_p, top_k, 11);
            let wanted = Some(probabilities.buffer.view_mut());
            backend.sample(
                tokens.view_mut(),
                wanted,
                positions.view_mut(),
                logits.view(),
                numbers.view(),
                sampling,
            );
            bench.finish();
            let found = backend.to_host(probabilities.buffer.view());
            for (i, found) in backend.to_host(tokens.view()).into_iter().zip(found).enumerate() {
                let random = f64::from(unit(philox(sampling.seed, [i as u32, position as u32, SITE, 0])[0]));
                let row = &logits.host[i * vocab..][..vocab];
                let near =
                    [0.0, -3e-6, 3e-6].map(|shift| reference(row, sampling, (random + shift).max(0.0)));
                // What is kept may be a token more or less, where the cut is within the rounding of sums.
                let is_near =
                    |&(token, p): &(u32, f64)| token == found.0 && (f64::from(found.1) - p).abs() <= 1e-3 * p;
                assert!(
                    near.iter().any(is_near),
                    "{vocab} tokens, {sampling:?}: found {found:?}, expected {near:?}"
                );
            }
        }
    }
}

/// A draft is taken where the model finds it more than `threshold` times as likely as its author did.
pub fn drafts<B: Backend>(backend: &B) {
    const THRESHOLD: f32 = 0.3;
    for (vocab, rows) in [(7, 40), (1000, 40), (5003, 24), (90_001, 3)] {
        let mut bench = Bench::new(backend);
        let mut values = bench.values(rows * vocab, 3.0);
        values.iter_mut().skip(3).step_by(11).for_each(|value| *value = f64::NEG_INFINITY);
        let logits = bench.act_of(&values);
        let own: Vec<u32> = (0..rows).map(|i| if i % 13 == 5 { u32::MAX } else { 6 }).collect();
        // Likely and unlikely ones, impossible ones, the first beyond the vocabulary, and one that is none.
        let likeliest = |row: usize| {
            let row = &logits.host[row * vocab..][..vocab];
            (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32
        };
        let draft = |row: usize| match row % 8 {
            0 => vocab as u32,
            1 => u32::MAX,
            2..=4 => likeliest(row),
            _ => ((row * 31) % vocab) as u32,
        };
        let drafted: Vec<u32> = (0..rows).map(draft).collect();
        let p = |row: usize| -> f64 {
            let values = &logits.host[row * vocab..][..vocab];
            let largest = values.iter().fold(f64::MIN, |m, &x| m.max(x));
            let total: f64 = values.iter().map(|x| (x - largest).exp()).sum();
            values.get(drafted[row] as usize).map_or(0.0, |x| (x - largest).exp() / total)
        };
        // Near the threshold on both sides, and far from it.
        let q = |row: usize| (p(row) / [0.301, 0.299, 0.5, 2.0, 0.1][row % 5]).clamp(1e-6, 1.0) as f32;
        let probabilities: Vec<f64> = (0..rows).map(|row| f64::from(q(row))).collect();
        let mut tokens = bench.integers(&own);
        let (drafts, of_drafts) = (bench.integers(&drafted), bench.f32_of(&probabilities));
        backend.verify(tokens.view_mut(), drafts.view(), of_drafts.view(), logits.view(), THRESHOLD);
        bench.finish();
        let mut taken = 0;
        for (row, found) in backend.to_host(tokens.view()).into_iter().enumerate() {
            let ratio = (p(row) / probabilities[row]).min(1.0);
            let expected = match (own[row], drafted[row]) {
                (u32::MAX, _) | (_, u32::MAX) => u32::MAX,
                (_, draft) if p(row) > 0.0 && ratio > f64::from(THRESHOLD) => draft,
                (token, _) => token,
            };
            assert_eq!(found, expected, "row {row} of {vocab}: {} / {}", p(row), probabilities[row]);
            taken += usize::from(expected == drafted[row] && expected != u32::MAX);
        }
        assert!(taken > 0 && taken < rows, "{taken} of {rows} taken");
    }
}
