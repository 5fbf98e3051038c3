//! Hardens code language models: trains a security guard into them, scores code token by token, and generates
//! code under the guard's guidance. The method is DeepGuard (arXiv 2604.09089); what is computed differently
//! from its published code, and why, is in `docs/decisions.md`. The binary `dg-run` is a thin layer over this
//! library.
//!
//! Training adds an *adapter* to a frozen base model: LoRA on its linear layers, and a *guard*, which is an
//! analyzer that gives every token a score in (0, 1), high being secure, and per-token statistics that steer
//! generation. Both are learnt from pairs of a vulnerable function and its fix. `docs/glossary.md` has the
//! other words.
//!
//! # Quick start
//!
//! ```no_run
//! use deepguard::cpu::Cpu;
//! use deepguard::decode::GenerateOptions;
//! use deepguard::train::TrainConfig;
//! use deepguard::{DeepGuard, Result};
//!
//! fn main() -> Result<()> {
//!     // A Hugging Face directory; `deepguard::hub` finds and downloads that of a hub id.
//!     let mut guard = DeepGuard::load(Cpu::new(), "models/smollm2-135m")?;
//!
//!     // Train on pairs of functions; `()` observes nothing. `guard.attach(dir)` takes a finished run.
//!     let config = TrainConfig::default().with(|c| {
//!         c.model = "models/smollm2-135m".into();
//!         c.data = "data".into();
//!         c.output_dir = "runs/first".into();
//!     });
//!     guard.train(&config, &mut ())?;
//!
//!     let scores = guard.score("query = \"SELECT * FROM users WHERE name = '\" + name + \"'\"\n")?;
//!     println!("mean score {:.4}", scores.mean);
//!
//!     let options = GenerateOptions::default().with(|o| {
//!         o.max_new_tokens = 64;
//!         o.guided = true;
//!     });
//!     let generated = guard.generate("def find_user(connection, name):\n", &options, &mut |_, _| true)?;
//!     println!("{}", guard.tokenizer.decode(&generated.samples[0])?);
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! `cargo install` builds all of `dg-run`. A program that depends on the library takes `default-features =
//! false` and what it wants of these, which `scripts/check-features.sh` checks one by one:
//!
//! | feature | what it adds | crates in all |
//! |---|---|---|
//! | none | computation on token ids: [`ops`], [`cpu`], [`model`], [`guard`], [`train`], [`decode`] | 46 |
//! | `text` | tokenizers: [`DeepGuard`], training on files of code | 95 |
//! | `cuda` | [`cuda`], whose kernels nvcc compiles if the build finds one | 55 |
//! | `hub` | downloads from the Hugging Face hub | 74 |
//! | `import` | GGUF files; implies `text` | 101 |
//! | `eval` | [`eval`](mod@crate::eval), the judge of generated code, on Unix; implies `text` | 105 |
//! | `cli` (default) | `dg-run` and the pages that it writes; implies all others | 167 |
//!
//! `examples/score.rs` and `examples/train.rs` are complete programs.
//!
//! # Modules
//!
//! Imports point downward, and there are no circles between the modules of a line or of a folder:
//!
//! ```text
//! cli                            arguments → typed options → one match on the device
//! report                         pages of scores, probes and runs; SARIF
//! eval                           suites of scenarios, samples, the judge and its sandbox, rates, comparisons
//! deepguard  export              the front door: load, attach, train, score, generate; merged models
//! probe                          what each layer of a model knows about security
//! train  decode                  the loops: batches, objective, checkpoints; prefill, steps, guidance
//! init                           initial values of what is trained
//! adapter  import  hub           folders in PEFT's format; GGUF files; models of the hub and its cache
//! attached                       what is added to a base model: LoRA, guard, token statistics
//! guard                          aggregator, analyzer, token statistics
//! model                          Transformer blocks, LoRA, taps, tokenizer, weights
//! dist                           ranks: what started them, how they watch each other, who computes what
//! cpu  cuda                      the contracts fulfilled
//! ops                            every operation's contract; tensors, buffers, arenas
//! manifest                       folders in which every changed bit is noticed
//! files                          files that are written whole or not at all
//! error  platform  system        errors with exit codes; differences of systems; memory of the process
//! ```
//!
//! `tests/layers.rs` holds this picture against the imports. What is computed is written once for every
//! [`ops::Backend`]: [`model`], [`guard`], [`attached`], [`adapter`], [`train`], [`decode`] and [`probe`]
//! name no device. Only [`cli`], [`mod@deepguard`] and [`export`], which merges on the CPU, do.
//!
//! - [`mod@deepguard`] has [`DeepGuard`], a model with its tokenizer and its guard.
//! - [`cuda`] is the backend for NVIDIA GPUs, whose kernels are compiled by the build script; [`cpu`] is the
//!   backend of every other machine and the oracle of both.
//! - [`ops`] says for every operation what is written, added to and kept.

/// `with` of options, which other crates cannot write as a struct expression.
macro_rules! with_changes {
    ($($options:ty),+) => { $(impl $options {
        /// These options with changes: `options.with(|o| o.field = value)`.
        #[must_use]
        pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }
    })+ };
}

pub mod adapter;
pub mod attached;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod decode;
#[cfg(feature = "text")]
pub mod deepguard;
pub mod dist;
pub mod error;
#[cfg(all(feature = "eval", unix))]
pub mod eval;
pub mod export;
pub mod files;
pub mod guard;
pub mod hub;
#[cfg(feature = "import")]
pub mod import;
pub mod init;
pub mod manifest;
pub mod model;
pub mod ops;
mod platform;
pub mod probe;
#[cfg(feature = "cli")]
pub mod report;
pub mod system;
pub mod train;

#[cfg(feature = "text")]
pub use deepguard::{AnyGuard, DeepGuard};
with_changes!(
    decode::CoDecoding,
    decode::GenerateOptions,
    guard::GuardConfig,
    model::LoraConfig,
    ops::sample::Sampling,
    probe::ProbeOptions,
    train::TrainConfig,
    train::step::Objective
);

pub use error::{Error, ErrorKind, Result};

/// The snippets of the README, compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
