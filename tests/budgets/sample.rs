//! Guidance and sampling.

use deepguard::ops::Device;
use deepguard::ops::sample::{Adjustment, Sample, Sampling};
use half::bf16;

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, holding, random};

#[test]
fn guide() {
    if uncounted() {
        return;
    }
    let rows = 64;
    for vocab in [32_000, 151_936] {
        let [counters] = count(["guide"], |cuda| {
            let mut logits = random(cuda, rows * vocab, 4.0);
            let (stats, strength) = (buffer(cuda, vocab), buffer(cuda, rows));
            cuda.guide(logits.view_mut(), stats.view(), strength.view(), 0.5);
        });
        check(&format!("guide {vocab}"), &counters, rows * vocab * 4 + vocab * 4 + rows * 4);
        // The strength of a row, with each vector of its logits.
        narrow("guide", &counters, rows * vocab / 8);
    }
}

/// Few tokens are marked: the marks are read, and where there is none, nothing else.
#[test]
fn adjust() {
    if uncounted() {
        return;
    }
    let rows = 64;
    for vocab in [32_000, 151_936] {
        let [counters] = count(["adjust"], |cuda| {
            let mut logits = random(cuda, rows * vocab, 4.0);
            let (mut marks, last) = (buffer(cuda, rows * vocab), holding(cuda, &vec![7u32; rows]));
            let adjustment = Adjustment { repetition_penalty: 1.1, first: false };
            cuda.adjust(logits.view_mut(), marks.view_mut(), last.view(), adjustment);
        });
        // A mark of 8 tokens takes a thread; each warp of 256 tokens reads the row's last one, a sector, too.
        let warps = vocab.div_ceil(256);
        check(&format!("adjust {vocab}"), &counters, rows * (vocab + 32 * warps));
    }
}

/// Each row is read once, and one logit of it again.
#[test]
fn verify() {
    if uncounted() {
        return;
    }
    let rows = 3;
    for vocab in [32_000, 151_936] {
        let [counters] = count(["verify"], |cuda| {
            let (logits, mut tokens) = (random(cuda, rows * vocab, 4.0), buffer(cuda, rows));
            let (drafts, probabilities) = (buffer(cuda, rows), buffer(cuda, rows));
            cuda.verify(tokens.view_mut(), drafts.view(), probabilities.view(), logits.view(), 0.3);
        });
        check(&format!("verify {vocab}"), &counters, rows * (vocab * 2 + 3 * 4));
        narrow("verify: tokens, drafts, probabilities and their logits", &counters, 5 * rows);
    }
}

#[test]
fn sample() {
    if uncounted() {
        return;
    }
    let rows = 3;
    let usual = Sampling::new(0.8, 0.95, 50, 1);
    let samplings = [
        usual,
        usual.with(|o| o.temperature = 0.0),
        usual.with(|o| o.top_k = 0),
        usual.with(|o| {
            o.top_k = 0;
            o.top_p = 1.0;
        }),
    ];
    for vocab in [32_000, 151_936] {
        for sampling in samplings {
            let [counters] = count(["sample"], |cuda| {
                let (mut logits, mut tokens) = (random(cuda, rows * vocab, 4.0), buffer(cuda, rows));
                // As a model that has made up its mind about some forty tokens.
                let likely = random(cuda, 40, 4.0);
                for row in 0..rows {
                    let likeliest = holding(cuda, &[bf16::from_f32(16.0); 3]);
                    let at = row * vocab + 1000;
                    cuda.copy(logits.slice_mut(at..at + 3), likeliest.view());
                    cuda.copy(logits.slice_mut(at + 3..at + 43), likely.view());
                }
                let (numbers, mut positions) = (buffer(cuda, rows), buffer(cuda, rows));
                let (tokens, positions) = (tokens.view_mut(), positions.view_mut());
                cuda.sample(tokens, None, positions, logits.view(), numbers.view(), sampling);
            });
            check(&format!("sample {vocab}, {sampling:?}"), &counters, rows * (vocab * 2 + 4 * 4));
            narrow("sample: tokens, numbers and positions", &counters, 4 * rows);
        }
    }
}
