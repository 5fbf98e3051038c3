//! LoRA adapters on the seven linear layers of a block (METHOD §2).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::config::{Architecture, Config};
use crate::model::params::{Layout, Param};

/// Ranks go up to this: beyond, an adapter is larger than any layer, and sizes could overflow.
pub const MAX_RANK: usize = 1 << 16;

/// A linear layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Attention output.
    O,
    /// Gate of the feed-forward.
    Gate,
    /// Up-projection of the feed-forward.
    Up,
    /// Down-projection of the feed-forward.
    Down,
}

impl Projection {
    /// All projections, in the order of the computation.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The module's name in Hugging Face checkpoints.
    pub fn module(self) -> &'static str {
        match self {
            Projection::Q => "q_proj",
            Projection::K => "k_proj",
            Projection::V => "v_proj",
            Projection::O => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// The module's path inside a block.
    pub fn path(self) -> String {
        let parent = if self < Projection::Gate { "self_attn" } else { "mlp" };
        format!("{parent}.{}", self.module())
    }

    /// (out_features, in_features).
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (h, i) = (config.hidden_size, config.intermediate_size);
        match self {
            Projection::Q => (config.q_size(), h),
            Projection::K | Projection::V => (config.kv_size(), h),
            Projection::O => (h, config.q_size()),
            Projection::Gate | Projection::Up => (i, h),
            Projection::Down => (h, i),
        }
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.module())
    }
}

impl FromStr for Projection {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Projection::ALL.into_iter().find(|p| p.module() == name).ok_or_else(|| {
            let known = Projection::ALL.map(Projection::module).join(", ");
            Error::usage(format!(
                "LoRA target `{name}` is not a linear layer of a block; expected some of: {known}"
            ))
        })
    }
}

/// Which linear layers of every block are adapted. In options and files: nothing, `all-linear`, or names, as a list or
/// separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Option<RawTargets>", into = "Option<RawTargets>")]
pub enum TargetModules {
    /// What was published for the architecture.
    #[default]
    ByArchitecture,
    /// All seven projections.
    AllLinear,
    /// These.
    Named(BTreeSet<Projection>),
}

/// [`TargetModules`] as it stands in files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum RawTargets {
    Text(String),
    Names(Vec<String>),
}

impl TargetModules {
    /// What PEFT, too, calls all of them.
    pub const ALL_LINEAR: &str = "all-linear";

    /// The layers of a base model.
    pub fn for_model(&self, config: &Config) -> BTreeSet<Projection> {
        match self {
            TargetModules::ByArchitecture => LoraConfig::default_for(config).targets,
            TargetModules::AllLinear => Projection::ALL.into(),
            TargetModules::Named(targets) => targets.clone(),
        }
    }

    fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let names: Vec<&str> = names.into_iter().map(str::trim).filter(|name| !name.is_empty()).collect();
        match names.as_slice() {
            [] => Ok(TargetModules::ByArchitecture),
            [name] if name.replace('_', "-") == Self::ALL_LINEAR => Ok(TargetModules::AllLinear),
            names => names.iter().map(|name| name.parse()).collect::<Result<_>>().map(TargetModules::Named),
        }
    }
}

impl FromStr for TargetModules {
    type Err = Error;

    fn from_str(names: &str) -> Result<Self> {
        Self::from_names(names.split(','))
    }
}

impl TryFrom<Option<RawTargets>> for TargetModules {
    type Error = Error;

    fn try_from(raw: Option<RawTargets>) -> Result<Self> {
        match raw {
            None => Ok(TargetModules::ByArchitecture),
            Some(RawTargets::Text(names)) => names.parse(),
            Some(RawTargets::Names(names)) => Self::from_names(names.iter().map(String::as_str)),
        }
    }
}

impl From<TargetModules> for Option<RawTargets> {
    fn from(targets: TargetModules) -> Self {
        match targets {
            TargetModules::ByArchitecture => None,
            TargetModules::AllLinear => Some(RawTargets::Text(TargetModules::ALL_LINEAR.to_owned())),
            TargetModules::Named(targets) => {
                Some(RawTargets::Names(targets.iter().map(ToString::to_string).collect()))
            }
        }
    }
}

/// Hyper-parameters of the adapters.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rank of every adapter.
    pub rank: usize,
    /// Scale is `alpha / rank` (`alpha / √rank` with `use_rslora`).
    pub alpha: f64,
    /// Dropout on the adapter's input while training.
    pub dropout: f32,
    /// Which linear layers are adapted.
    pub targets: BTreeSet<Projection>,
    /// Rank-stabilised scaling.
    pub use_rslora: bool,
}

impl Default for LoraConfig {
    /// The published defaults, on every linear layer.
    fn default() -> Self {
        let targets = Projection::ALL.into_iter().collect();
        LoraConfig { rank: 16, alpha: 32.0, dropout: 0.1, targets, use_rslora: false }
    }
}

impl LoraConfig {
    /// The published defaults: rank 16, alpha 32, dropout 0.1, on q and v for Qwen2, on q, k, v and o for Llama.
    pub fn default_for(config: &Config) -> Self {
        use Projection::{K, O, Q, V};
        let targets = match config.architecture {
            Architecture::Qwen2 => BTreeSet::from([Q, V]),
            Architecture::Llama => BTreeSet::from([Q, K, V, O]),
        };
        LoraConfig { targets, ..LoraConfig::default() }
    }

    /// What the adapter's product is multiplied with.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (if self.use_rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }) as f32
    }
}

/// The two factors of one adapter.
#[derive(Clone, Debug)]
pub struct LoraPair {
    /// lora_A `[rank, in_features]`.
    pub a: Param,
    /// lora_B `[out_features, rank]`, right after `a` in the layout.
    pub b: Param,
    /// Which of the layer's adapters this is, from 0.
    pub index: usize,
    /// Dropout site, different for every adapter of the model.
    pub site: u32,
}

/// The adapters of a model: where their parameters lie.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Hyper-parameters.
    pub config: LoraConfig,
    layers: Vec<[Option<LoraPair>; 7]>,
}

impl Lora {
    /// Adds the parameters of every adapted layer to `layout`.
    pub fn new(config: LoraConfig, model: &Config, layout: &mut Layout) -> Result<Self> {
        if config.rank == 0 || config.targets.is_empty() {
            let (rank, targets) = (config.rank, config.targets.len());
            return Err(Error::usage(format!(
                "LoRA needs a rank of at least 1 and at least one target module; found rank {rank} and {targets} targets"
            )));
        }
        let mut site = 0;
        let mut layer = |i: usize| {
            let mut index = 0;
            Projection::ALL.map(|p| {
                config.targets.contains(&p).then(|| {
                    let (out, input) = p.shape(model);
                    let name = |factor| {
                        format!("base_model.model.model.layers.{i}.{}.lora_{factor}.weight", p.path())
                    };
                    let a = layout.add(name("A"), &[config.rank, input]);
                    let b = layout.add(name("B"), &[out, config.rank]);
                    (site, index) = (site + 1, index + 1);
                    LoraPair { a, b, index: index - 1, site: site - 1 }
                })
            })
        };
        let layers = (0..model.num_hidden_layers).map(&mut layer).collect();
        Ok(Lora { config, layers })
    }

    /// The adapter of one linear layer, if it has one.
    pub fn get(&self, layer: usize, projection: Projection) -> Option<&LoraPair> {
        self.layers[layer][projection as usize].as_ref()
    }

    /// Adapters per layer.
    pub fn per_layer(&self) -> usize {
        self.config.targets.len()
    }

    /// Every adapter.
    pub fn pairs(&self) -> impl Iterator<Item = &LoraPair> {
        self.layers.iter().flatten().flatten()
    }
}
