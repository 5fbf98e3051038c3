//! Small models with random adapters and guards, and pairs to train them on.

#![allow(dead_code)]

use std::collections::BTreeSet;

use deepguard::attached::Attached;
use deepguard::cpu::Cpu;
use deepguard::guard::{Aggregation, GuardConfig};
use deepguard::model::activations::Recompute;
use deepguard::model::prefix::PrefixConfig;
use deepguard::model::{LoraConfig, Projection, Transformer};
use deepguard::ops::Backend;
use deepguard::ops::philox::{philox, unit};
use deepguard::train::Method;
use deepguard::train::base_cache::BaseCache;
use deepguard::train::batch::TokenPair;
use deepguard::train::changes::Changes;
use deepguard::train::step::{Objective, Stepper};

/// Random numbers that are the same everywhere.
pub struct Random {
    seed: u64,
    count: u32,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random { seed, count: 0 }
    }

    fn word(&mut self) -> u32 {
        self.count += 1;
        philox(self.seed, [self.count, 0, 0, 0])[0]
    }

    /// In [-1, 1).
    pub fn signed(&mut self) -> f32 {
        2.0 * unit(self.word()) - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    pub fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| scale * self.signed()).collect()
    }
}

/// The trained parameters and the objective of a test.
#[derive(Clone, Copy)]
pub struct Setting {
    pub model: &'static str,
    pub aggregation: Aggregation,
    pub taps: usize,
    pub dropout: f32,
    pub recompute: Recompute,
    pub base_cache: bool,
    pub objective: Objective,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            model: "llama-tiny",
            aggregation: Aggregation::Attention,
            taps: 3,
            dropout: 0.1,
            recompute: Recompute::Nothing,
            base_cache: false,
            objective: Objective::default().with(|o| {
                o.max_seq_len = 64;
                o.seed = 7;
            }),
        }
    }
}

/// One of the models that come with the golden cases.
pub fn model(name: &str) -> Transformer<Cpu> {
    model_on(Cpu::new(), name)
}

/// The same on a device.
pub fn model_on<B: Backend>(backend: B, name: &str) -> Transformer<B> {
    let dir = crate::places::root().join("tests/golden/models").join(name);
    Transformer::load(backend, &dir).expect("a golden model")
}

/// Adapters on all seven projections and a guard, all with random values of a trained model's size.
pub fn attached<B: Backend>(model: &Transformer<B>, setting: Setting) -> Attached<B> {
    attached_to(model, setting, BTreeSet::from(Projection::ALL))
}

/// The same with adapters on `targets`.
pub fn attached_to<B: Backend>(
    model: &Transformer<B>,
    setting: Setting,
    targets: BTreeSet<Projection>,
) -> Attached<B> {
    let lora = LoraConfig::default().with(|o| {
        o.rank = 5;
        o.alpha = 7.0;
        o.dropout = setting.dropout;
        o.targets = targets;
        o.use_rslora = false;
    });
    attached_as(model, setting, lora)
}

/// The same with these adapters.
pub fn attached_as<B: Backend>(model: &Transformer<B>, setting: Setting, lora: LoraConfig) -> Attached<B> {
    let guard = GuardConfig::default().with(|o| {
        o.aggregation = setting.aggregation;
        o.layers = setting.taps;
        o.dropout = setting.dropout;
    });
    let mut attached = Attached::new(&model.backend, &model.config, lora, guard).expect("a valid setting");
    let mut random = Random::new(11);
    for param in attached.params.layout().params().to_vec() {
        let fan_in = param.shape.get(1).copied().unwrap_or(1) as f32;
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| param.name.ends_with(suffix));
        let is_gamma = ends(&["processor.1.weight", "processor.5.weight"]);
        let scale = match param.name.as_str() {
            name if name.contains("lora_B") => 0.05,
            name if name.ends_with(".bias") || is_gamma => 0.2,
            name if name.ends_with("processor.8.weight") => 0.3 * (3.0 / fan_in).sqrt(),
            _ => (3.0 / fan_in).sqrt(),
        };
        let mut values = random.vector(param.range.len(), scale);
        // Half of the ReLUs open and half shut, few near their kink, where a central difference means
        // nothing.
        let before_relu = ends(&["processor.1.bias", "processor.5.bias", "processor.8.bias"]);
        let offset = |random: &mut Random| match (is_gamma, before_relu) {
            (true, _) => 1.0,
            (_, true) => 4.0 * random.signed().signum(),
            _ => 0.0,
        };
        values.iter_mut().for_each(|v| *v += offset(&mut random));
        attached.params.upload(&param, &values);
    }
    attached
}

/// Pairs with a shared prefix, with none, with a last token that differs, and one whose vulnerable function
/// is a prefix of the secure one.
pub fn pairs() -> Vec<TokenPair> {
    let mut random = Random::new(5);
    let lengths = [(23, 31, 9), (17, 17, 16), (20, 11, 0), (13, 7, 7)];
    let pair = |(id, (secure, vulnerable, shared)): (usize, (usize, usize, usize))| {
        let mut tokens = |n: usize| (0..n).map(|_| random.below(511) as u32).collect::<Vec<_>>();
        let (secure, mut vulnerable) = (tokens(secure), tokens(vulnerable));
        vulnerable[..shared].copy_from_slice(&secure[..shared]);
        if let (Some(v), Some(s)) = (vulnerable.get_mut(shared), secure.get(shared)) {
            *v = (s + 1) % 512;
        }
        let pair = TokenPair::new(id, secure, vulnerable);
        assert_eq!(pair.shared(), shared);
        pair
    };
    lengths.into_iter().enumerate().map(pair).collect()
}

pub fn stepper<'m, B: Backend>(
    model: &'m Transformer<B>,
    pairs: &[TokenPair],
    setting: Setting,
) -> Stepper<'m, B> {
    stepper_of(model, attached(model, setting), pairs, setting)
}

/// The same with given adapters and guard.
pub fn stepper_of<'m, B: Backend>(
    model: &'m Transformer<B>,
    attached: Attached<B>,
    pairs: &[TokenPair],
    setting: Setting,
) -> Stepper<'m, B> {
    // A budget that holds some pairs in memory and sends the others to disk.
    let cache = setting.base_cache.then(|| BaseCache::new(10_000));
    stepper_with(model, attached, pairs, setting, cache)
}

/// The same with a given cache of base states.
pub fn stepper_with<'m, B: Backend>(
    model: &'m Transformer<B>,
    attached: Attached<B>,
    pairs: &[TokenPair],
    setting: Setting,
    cache: Option<BaseCache<B>>,
) -> Stepper<'m, B> {
    let capacity = setting.objective.capacity(pairs.iter(), pairs.len());
    Stepper::new(model, attached, setting.objective, cache, capacity, &[setting.recompute]).expect("memory")
}

/// The pairs with marks of what their fixes changed.
pub fn changed_pairs() -> Vec<TokenPair> {
    let mark = |pair: TokenPair| {
        let changes = Some(Changes::of_tokens(&pair.secure, &pair.vulnerable));
        TokenPair { changes, ..pair }
    };
    pairs().into_iter().map(mark).collect()
}

/// Rows of the prefixes of [`prefixes`].
pub const PREFIX: usize = 3;

/// Prefixes of the size of keys and values.
pub fn prefixes<B: Backend>(model: &Transformer<B>, controls: usize, dropout: f32) -> Attached<B> {
    let config = PrefixConfig { len: PREFIX, dropout };
    let mut attached =
        Attached::with_prefixes(&model.backend, &model.config, config, controls).expect("a valid length");
    let mut random = Random::new(17);
    for param in attached.params.layout().params().to_vec() {
        attached.params.upload(&param, &random.vector(param.range.len(), 0.7));
    }
    attached
}

/// SVEN's, with the published weights.
pub fn sven_objective() -> Objective {
    Setting::default().objective.with(|o| {
        o.method = Method::Sven;
        o.prefix = PREFIX;
        o.security_weight = 4.0;
        o.kl_weight = 1.6;
    })
}

/// A stepper of SVEN's two prefixes.
pub fn sven_stepper<'m, B: Backend>(
    model: &'m Transformer<B>,
    pairs: &[TokenPair],
    objective: Objective,
    dropout: f32,
) -> Stepper<'m, B> {
    let capacity = objective.capacity(pairs.iter(), pairs.len());
    let (attached, cache) = (prefixes(model, 2, dropout), Some(BaseCache::new(1 << 20)));
    Stepper::new(model, attached, objective, cache, capacity, &[Recompute::Nothing]).expect("memory")
}

/// All pairs as one micro-batch.
pub fn one_micro_batch(pairs: &[TokenPair]) -> Vec<Vec<&TokenPair>> {
    vec![pairs.iter().collect()]
}

/// Every pair as a micro-batch of its own.
pub fn micro_batches_of_one(pairs: &[TokenPair]) -> Vec<Vec<&TokenPair>> {
    pairs.iter().map(|pair| vec![pair]).collect()
}
