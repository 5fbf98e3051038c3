use super::*;
use crate::error::ErrorKind;
use crate::ops::philox::{philox, unit};

const WIDTH: usize = 24;

/// Around 0, with variance 1: the sum of twelve uniform numbers.
fn normal(seed: u64, counter: [u32; 3]) -> f32 {
    let uniform = |i: u32| philox(seed, [counter[0], counter[1], counter[2], i]).map(unit);
    (0..3).flat_map(uniform).sum::<f32>() - 6.0
}

/// Pairs whose halves have most in common, as functions and their fixes do, and differ by noise; in the
/// layers of `signal`, numbered from 1, also by a step along one feature.
fn states(pairs: usize, layers: usize, signal: &[usize], seed: u64) -> PairStates {
    let value = |layer: usize, pair: usize, half: usize, i: usize| {
        let common = normal(seed, [pair as u32, i as u32, layer as u32]);
        let own = normal(seed, [pair as u32, i as u32, (1000 + 2 * layer + half) as u32]);
        let step = if i == 3 && signal.contains(&(layer + 1)) { 1.5 } else { 0.0 };
        common + 0.5 * own + if half == 0 { step } else { -step }
    };
    let of_layer = |layer: usize| {
        let index = (0..pairs * 2 * WIDTH).map(|i| (i / WIDTH / 2, i / WIDTH % 2, i % WIDTH));
        index.map(|(pair, half, i)| value(layer, pair, half, i)).collect()
    };
    PairStates::new((0..layers).map(of_layer).collect(), WIDTH)
}

/// Pairs without a function in common.
fn token_pairs(count: usize) -> Vec<TokenPair> {
    let pair = |id| TokenPair::new(id, vec![2 * id as u32], vec![2 * id as u32 + 1]);
    (0..count).map(pair).collect()
}

fn probed(states: &PairStates, pairs: &[TokenPair], seed: u64) -> ProbeReport {
    let options = ProbeOptions { folds: 5, seed, ..ProbeOptions::default() };
    evaluate(states, &folds(pairs, &options).unwrap(), &options, &|_| true).unwrap()
}

#[test]
fn the_layers_with_a_signal_are_found() {
    let report = probed(&states(60, 8, &[4, 5, 6], 1), &token_pairs(60), 42);
    let signal = report.signal.clone().unwrap();
    assert!((4..=6).contains(&signal.best_layer), "{signal:?}");
    assert!(4 <= signal.band[0] && signal.band[1] <= 6, "{signal:?}");
    assert_eq!(signal.guard_layers, 4.max(8 - signal.band[1] + 1));
    for probe in &report.layers {
        let certain = probe.accuracy.low > CHANCE && probe.pair_accuracy.low > CHANCE;
        assert_eq!(certain, (4..=6).contains(&probe.layer), "{probe:?}");
        assert!(probe.accuracy.low <= probe.accuracy.value && probe.accuracy.value <= probe.accuracy.high);
    }
}

#[test]
fn a_deep_signal_asks_for_more_layers_than_are_usual() {
    let report = probed(&states(60, 9, &[2], 5), &token_pairs(60), 42);
    let expected = Signal { best_layer: 2, band: [2, 2], guard_layers: 8 };
    assert_eq!(report.signal, Some(expected));
}

#[test]
fn where_there_is_no_signal_none_is_found() {
    let runs = 60;
    let found = (0..runs).filter(|&seed| {
        let report = probed(&states(40, 6, &[], 100 + seed), &token_pairs(40), seed);
        let mean = report.layers.iter().map(|probe| probe.accuracy.value).sum::<f64>() / 6.0;
        assert!((mean - CHANCE).abs() < 0.15, "seed {seed}: {mean}");
        report.signal.is_some()
    });
    // One in twenty is what a significance of 5 % allows; with twice as many, this would fail half of the
    // time.
    assert!(found.count() <= 5);
}

/// Every pair is there `copies` times.
fn copied(groups: usize, copies: usize, layers: usize, seed: u64) -> (PairStates, Vec<TokenPair>) {
    let once = states(groups, layers, &[], seed);
    let of_layer = |layer: usize| {
        let pair = |pair| std::iter::repeat_n(once.pair(layer, pair).concat(), copies).flatten();
        (0..groups).flat_map(pair).collect()
    };
    let pairs = token_pairs(groups).into_iter().flat_map(|pair| std::iter::repeat_n(pair, copies));
    (PairStates::new((0..layers).map(of_layer).collect(), WIDTH), pairs.collect())
}

/// Every pair is there three times, and tells its halves apart by a direction of its own: whoever has seen
/// the pair knows the answer, and nobody else does.
#[test]
fn knowing_a_pair_is_of_no_use() {
    let (groups, copies, layers) = (20, 3, 4);
    let (mut honest, mut by_pairs) = (0, 0);
    for seed in 0..20 {
        let (states, pairs) = copied(groups, copies, layers, 300 + seed);
        let report = probed(&states, &pairs, seed);
        assert_eq!(report.groups, groups);
        let mean = report.layers.iter().map(|probe| probe.accuracy.value).sum::<f64>() / layers as f64;
        assert!((mean - CHANCE).abs() < 0.15, "seed {seed}: {mean}");
        honest += usize::from(report.signal.is_some());
        // The same answers, taken for those of independent pairs.
        let options = ProbeOptions { folds: 5, seed, ..ProbeOptions::default() };
        let deal = folds(&pairs, &options).unwrap();
        let alone = Deal { group_of: (0..pairs.len()).collect(), groups: pairs.len(), ..deal };
        by_pairs += usize::from(evaluate(&states, &alone, &options, &|_| true).unwrap().signal.is_some());
    }
    assert!(honest <= 2 && by_pairs > 2 * honest + 2, "{honest} and {by_pairs} of 20");

    let (states, pairs) = copied(groups, copies, 1, 3);
    let fold_of = (0..pairs.len()).map(|pair| pair % copies).collect();
    let careless = Deal { fold_of, group_of: (0..pairs.len()).collect(), groups: pairs.len() };
    let fooled = evaluate(
        &states,
        &careless,
        &ProbeOptions { folds: copies, seed: 42, ..ProbeOptions::default() },
        &|_| true,
    )
    .unwrap();
    assert!(fooled.layers[0].accuracy.low > 0.7 && fooled.signal.is_some(), "{fooled:?}");
}

/// Each of few pairs is a large part of what the others are learnt from.
#[test]
fn few_pairs_raise_no_more_false_alarms_than_many() {
    let runs = 100;
    for (groups, layers) in [(5, 4), (6, 1), (8, 1), (10, 2)] {
        let found = |seed: u64| {
            let states = states(groups, layers, &[], 5000 + seed);
            probed(&states, &token_pairs(groups), seed).signal.is_some()
        };
        let found = (0..runs).filter(|&seed| found(seed)).count();
        assert!(found <= 10, "{found} of {runs} with {groups} pairs and {layers} layers");
    }
    // Sixteen pairs with a strong signal are enough for one.
    assert!(probed(&states(16, 2, &[1, 2], 2), &token_pairs(16), 1).signal.is_some());
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let states = states(30, 3, &[2], 8);
    let json = |seed| serde_json::to_string(&probed(&states, &token_pairs(30), seed)).unwrap();
    assert_eq!(json(1), json(1));
    assert_ne!(json(1), json(2));
}

#[test]
fn constant_features_do_no_harm() {
    let mut values = vec![0.25f32; 12 * 2 * WIDTH];
    values.chunks_mut(WIDTH).enumerate().for_each(|(i, row)| row[0] = if i % 2 == 0 { 1.0 } else { -1.0 });
    let report = probed(&PairStates::new(vec![values], WIDTH), &token_pairs(12), 0);
    assert_eq!(report.layers[0].accuracy.value, 1.0);
}

#[test]
fn too_few_pairs_are_refused() {
    let error =
        folds(&token_pairs(4), &ProbeOptions { folds: 5, seed: 0, ..ProbeOptions::default() }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("at least 5") && error.to_string().contains("found 4"), "{error}");
}

/// With two folds, the one that is learnt from would choose the penalty as well, and always the smallest.
#[test]
fn two_folds_are_refused() {
    let error =
        folds(&token_pairs(9), &ProbeOptions { folds: 2, seed: 0, ..ProbeOptions::default() }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("at least 3") && error.to_string().contains("found 2"), "{error}");
    assert!(folds(&token_pairs(9), &ProbeOptions { folds: 3, seed: 0, ..ProbeOptions::default() }).is_ok());
}

#[test]
fn every_fit_is_told() {
    use std::sync::Mutex;

    let (told, options) =
        (Mutex::new(Vec::new()), ProbeOptions { folds: 4, seed: 0, ..ProbeOptions::default() });
    let deal = folds(&token_pairs(12), &options).unwrap();
    let watch = |progress| {
        told.lock().unwrap().push(progress);
        true
    };
    evaluate(&states(12, 3, &[], 1), &deal, &options, &watch).unwrap();
    let mut told = told.into_inner().unwrap();
    assert_eq!(told[0], Progress::Fitted(0, 12));
    told.sort_by_key(|progress| match progress {
        Progress::Read(done, _) | Progress::Fitted(done, _) => *done,
    });
    assert_eq!(told, (0..=12).map(|done| Progress::Fitted(done, 12)).collect::<Vec<_>>());
}

#[test]
fn whoever_watches_may_end_it() {
    let options = ProbeOptions { folds: 4, seed: 0, ..ProbeOptions::default() };
    let deal = folds(&token_pairs(12), &options).unwrap();
    let fits = AtomicUsize::new(0);
    let watch = |progress| {
        fits.fetch_add(1, Ordering::Relaxed);
        progress == Progress::Fitted(0, 12)
    };
    let ended = evaluate(&states(12, 3, &[], 1), &deal, &options, &watch).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Interrupted);
    assert!(fits.into_inner() < 12);
}

/// The head is linear: the mean of a text's logits is what it makes of the mean state.
#[test]
fn states_are_the_means_of_what_the_model_computes() {
    use std::path::Path;

    use crate::cpu::Cpu;
    use crate::decode::final_logits;
    use crate::model::weights::Weights;

    for name in ["llama-tiny", "qwen2-tiny"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name);
        let model = Transformer::load(Cpu::new(), &dir).unwrap();
        let (layers, width) = (model.config.num_hidden_layers, model.config.hidden_size);
        let weights = Weights::open(&dir).unwrap();
        let head =
            if model.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = weights.tensor(head).unwrap().to_f32_vec();
        let function = |len: u32, step: u32| (0..len).map(|i| (i * step + 3) % 500).collect::<Vec<u32>>();
        // Two pairs with next to nothing in common, one whose functions differ late, and one of which one
        // begins the other.
        let pair = |secure: Vec<u32>, vulnerable| TokenPair::new(0, secure, vulnerable);
        let late = [function(25, 7), function(9, 13)].concat();
        let pairs = [
            pair(function(17, 7), function(8, 9)),
            pair(function(40, 11), function(31, 13)),
            pair(function(40, 7), late),
            pair(function(30, 5), function(21, 5)),
        ];
        let states = PairStates::read(&model, None, &pairs, usize::MAX, &mut |_| Ok(())).unwrap();
        assert_eq!((states.layers(), states.width()), (layers, width));
        for (number, pair) in pairs.iter().enumerate() {
            for (tokens, state) in
                [&pair.secure, &pair.vulnerable].into_iter().zip(states.pair(layers - 1, number))
            {
                let logits = final_logits(&model, None, tokens).unwrap();
                let vocabulary = logits.len() / tokens.len();
                for id in (0..vocabulary).step_by(37) {
                    let mean = logits.iter().skip(id).step_by(vocabulary).sum::<f32>() / tokens.len() as f32;
                    let found: f32 =
                        head[id * width..(id + 1) * width].iter().zip(state).map(|(w, x)| w * x).sum();
                    assert!(
                        (mean - found).abs() < 1e-4 * (1.0 + mean.abs()),
                        "{name}, {id}: {mean} and {found}"
                    );
                }
            }
            let [secure, _] = states.pair(0, number);
            assert_ne!(secure, states.pair(1, number)[0], "layers differ");
        }
    }
}
