//! How publications sample, and what this program does otherwise.

use serde::Serialize;

/// A way to sample the completions of a suite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// Samples of every scenario.
    pub num_samples: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Probability of the tokens kept.
    pub top_p: f32,
    /// Number of tokens kept; 0 keeps all.
    pub top_k: usize,
    /// Most new tokens.
    pub max_new_tokens: usize,
    /// Whether an adapter guides what is sampled.
    pub guided: bool,
    /// What is not as published, a sentence each.
    pub differences: &'static [&'static str],
}

const STOP: &str = "Completions end with their function, by rules of this program, not where the publication's code cuts them.";
const ORACLE: &str = "Dynamic checks decide what is secure; the publication counts alarms of CodeQL, so that its numbers cannot be compared.";
const DRAWS: &str = "Random numbers depend on seed, scenario, sample and position alone; the publication's depend on the batch.";

/// All presets.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "deepguard",
        num_samples: 100,
        temperature: 0.1,
        top_p: 0.95,
        top_k: 50,
        max_new_tokens: 300,
        guided: true,
        differences: &[
            "100 samples have one seed; the publication draws 5 times 20, with seeds one apart.",
            "All scenarios of the suite are sampled; the publication leaves out six, on which it chose its settings.",
            STOP,
            ORACLE,
            DRAWS,
        ],
    },
    Preset {
        name: "sven",
        num_samples: 25,
        temperature: 0.4,
        top_p: 0.95,
        top_k: 50,
        max_new_tokens: 300,
        guided: false,
        differences: &[
            "One control is sampled in a run; the publication samples with the secure and the vulnerable prefix.",
            "Equal samples count as often as they are drawn; the publication counts them once (`distinct` in the result).",
            "Lines that begin another assignment are not cut off.",
            STOP,
            ORACLE,
            DRAWS,
        ],
    },
    // CodeGuardPlus/CodeGuardPlus at 0528ee9e, the defaults of generate.py. It leaves top-k to the generator,
    // which is that of transformers: 50.
    Preset {
        name: "codeguard+",
        num_samples: 10,
        temperature: 0.4,
        top_p: 0.95,
        top_k: 50,
        max_new_tokens: 300,
        guided: false,
        differences: &[
            "Top-k is 50, the default of the publication's generator, which may be another for a model that asks for it.",
            "Decoding has no constraints; the publication also has variants with some.",
            STOP,
            ORACLE,
            DRAWS,
        ],
    },
    // Co1lin/CWEval at e9a2a124, the defaults of cweval/generate.py. It sets neither top-p nor top-k; the
    // services that it asks then draw from all tokens.
    Preset {
        name: "cweval",
        num_samples: 20,
        temperature: 0.8,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: 2048,
        guided: false,
        differences: &[
            "Prompts are continued; the publication asks a chat model and takes the code block of its answer.",
            "Every token can be drawn; the publication leaves top-p and top-k to the service that it asks.",
            STOP,
            DRAWS,
        ],
    },
    Preset {
        name: "small",
        num_samples: 20,
        temperature: 0.4,
        top_p: 0.95,
        top_k: 50,
        max_new_tokens: 150,
        guided: false,
        differences: &["No publication's: for small models and small machines."],
    },
];
