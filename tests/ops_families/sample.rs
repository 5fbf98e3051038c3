use deepguard::ops::Backend;
use deepguard::ops::sample::Sampling;

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

/// Temperature 0 and `top_k` 1 take the largest logit, the first of equals; a NaN is reported.
pub fn greedy<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let logits = bench.act_of(&[1.0, 3.0, 3.0, -4.0, 0.0, f64::NAN, 9.0, 1.0, -1.0, -2.0, -3.0, -4.0]);
    let mut tokens = bench.integers(&[7u32; 3]);
    for (temperature, top_k) in [(0.0, 0), (0.8, 1)] {
        let sampling = Sampling { temperature, top_p: 1.0, top_k, seed: 1 };
        backend.sample(tokens.view_mut(), logits.view(), sampling, 5);
        assert_eq!(backend.to_host(tokens.view()), [1, u32::MAX, 0]);
    }
}

/// A row's draw depends on seed, row and position, and stays inside the nucleus.
pub fn draws<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    let row = [2.0, 1.9, -8.0, 1.8, -9.0];
    let logits = bench.act_of(&row.repeat(200));
    let draw = |seed: u64, position: u32| {
        let mut tokens = bench.integers(&[0u32; 200]);
        let sampling = Sampling { temperature: 1.0, top_p: 0.95, top_k: 50, seed };
        backend.sample(tokens.view_mut(), logits.view(), sampling, position);
        backend.to_host(tokens.view())
    };
    let first = draw(1, 0);
    assert_eq!(first, draw(1, 0));
    assert!(first != draw(2, 0) && first != draw(1, 1));
    for token in [0, 1, 3] {
        let count = first.iter().filter(|&&t| t == token).count();
        assert!((40..100).contains(&count), "token {token} drawn {count} times of 200");
    }
    assert!(first.iter().all(|t| [0, 1, 3].contains(t)));
}
