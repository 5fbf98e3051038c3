//! Ways to train an adapter: DeepGuard's, and the baselines that it is measured against.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an adapter is trained. All methods share data, engine, optimiser and the format of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Method {
    /// LoRA and a guard under the joint loss (METHOD §6).
    #[default]
    DeepGuard,
    /// LoRA under the cross-entropy of the secure functions, and nothing else.
    Ce,
    /// LoRA under SafeCoder's security losses: the cross-entropy of what a fix brought, and the unlikelihood
    /// of what it took away.
    SafeCoder,
    /// SVEN: two prefixes, of which one leads to secure and one to vulnerable code.
    Sven,
    /// CoSec's security expert: LoRA under the cross-entropy of what a fix brought, and the KL divergence to
    /// the base model of the rest. Another model is decoded [together with
    /// it](crate::decode::Expert).
    CoSec,
}

/// Options that only a guard's training reads.
const OF_GUARD: [&str; 4] = ["aggregation", "guard_layers", "guard_dropout", "margin"];

/// Options that only LoRA reads.
const OF_LORA: [&str; 4] = ["lora_r", "lora_alpha", "lora_dropout", "target_modules"];

/// Options that only prefixes read.
const OF_PREFIX: [&str; 2] = ["prefix_length", "prefix_dropout"];

impl Method {
    /// All methods.
    pub const ALL: [Method; 5] =
        [Method::DeepGuard, Method::Ce, Method::SafeCoder, Method::Sven, Method::CoSec];

    /// The method's name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Method::DeepGuard => "deepguard",
            Method::Ce => "ce",
            Method::SafeCoder => "safecoder",
            Method::Sven => "sven",
            Method::CoSec => "cosec",
        }
    }

    /// Whether a guard is trained, and token statistics are gathered, beside the adapter.
    pub fn has_guard(self) -> bool {
        self == Method::DeepGuard
    }

    /// Whether the loss has a term of security beside the language model's.
    pub fn has_security(self) -> bool {
        self.has_guard() || self.reads_vulnerable()
    }

    /// Whether the option `security_weight` weighs that term.
    pub fn weighs_security(self) -> bool {
        matches!(self, Method::DeepGuard | Method::Sven)
    }

    /// Whether prefixes are trained instead of LoRA.
    pub fn has_prefixes(self) -> bool {
        self == Method::Sven
    }

    /// Whether the KL divergence to the base model is a term of the loss.
    pub fn has_kl(self) -> bool {
        matches!(self, Method::DeepGuard | Method::Sven | Method::CoSec)
    }

    /// Whether that term counts up to a limit only, beyond which it has no gradient.
    pub fn limits_kl(self) -> bool {
        self == Method::DeepGuard
    }

    /// Whether the losses look at what a fix changed.
    pub fn reads_changes(self) -> bool {
        self.reads_vulnerable() || self == Method::CoSec
    }

    /// Whether they look at what it took away, too.
    pub fn reads_vulnerable(self) -> bool {
        matches!(self, Method::SafeCoder | Method::Sven)
    }

    /// AdamW's ε in step `t`, counted from 1. The optimiser of SVEN and SafeCoder adds it before it corrects
    /// the second moment for its bias, so that at first it counts for more.
    pub(super) fn epsilon(self, t: u32, beta2: f64) -> f64 {
        const EPSILON: f64 = 1e-8;
        match self {
            Method::SafeCoder | Method::Sven => EPSILON / (1.0 - beta2.powi(t as i32)).sqrt(),
            Method::DeepGuard | Method::Ce | Method::CoSec => EPSILON,
        }
    }

    /// Names of the options of [`TrainConfig`](crate::train::TrainConfig) that the method does not read.
    pub fn unused_options(self) -> Vec<&'static str> {
        let unless = |used: bool, options: &'static [&'static str]| if used { &[] } else { options };
        let unused = [
            unless(self.has_guard(), &OF_GUARD),
            unless(self.weighs_security(), &["security_weight"]),
            unless(self.has_kl(), &["kl_weight"]),
            unless(!self.has_prefixes(), &OF_LORA),
            unless(self.has_prefixes(), &OF_PREFIX),
        ];
        unused.concat()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
