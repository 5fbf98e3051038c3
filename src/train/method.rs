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
}

/// Options that only a guard's training reads.
const OF_GUARD: [&str; 5] = ["aggregation", "guard_layers", "guard_dropout", "margin", "security_weight"];

impl Method {
    /// All methods.
    pub const ALL: [Method; 3] = [Method::DeepGuard, Method::Ce, Method::SafeCoder];

    /// The method's name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Method::DeepGuard => "deepguard",
            Method::Ce => "ce",
            Method::SafeCoder => "safecoder",
        }
    }

    /// Whether a guard is trained, and token statistics are gathered, beside the adapter.
    pub fn has_guard(self) -> bool {
        self == Method::DeepGuard
    }

    /// Whether the loss has a term of security beside the language model's.
    pub fn has_security(self) -> bool {
        self.has_guard() || self.reads_changes()
    }

    /// Whether the KL divergence to the base model is a term of the loss.
    pub fn has_kl(self) -> bool {
        self == Method::DeepGuard
    }

    /// Whether the losses look at what a fix changed.
    pub fn reads_changes(self) -> bool {
        self == Method::SafeCoder
    }

    /// Names of the options of [`TrainConfig`](crate::train::TrainConfig) that the method does not read.
    pub fn unused_options(self) -> Vec<&'static str> {
        let of_guard = OF_GUARD.into_iter().filter(|_| !self.has_guard());
        of_guard.chain(["kl_weight"].into_iter().filter(|_| !self.has_kl())).collect()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
