//! Hardens code language models: trains a security guard into them, scores code token by token, and generates code
//! under the guard's guidance. The method is DeepGuard (arXiv 2604.09089); what is computed differently from its
//! published code, and why, is in `docs/decisions.md`. The binary `dg-run` is a thin layer over this library.
//!
//! A *guard* is what training adds to a frozen base model: LoRA adapters, an analyzer that gives every token a score in
//! (0, 1), high being secure, and per-token statistics that steer generation. It is learnt from pairs of a vulnerable
//! function and its fix.
//!
//! # Quick start
//!
//! ```no_run
//! use deepguard::cpu::Cpu;
//! use deepguard::decode::GenerateOptions;
//! use deepguard::ops::sample::Sampling;
//! use deepguard::train::TrainConfig;
//! use deepguard::{DeepGuard, Result};
//!
//! fn main() -> Result<()> {
//!     // A Hugging Face directory, or a hub id in the local cache.
//!     let mut guard = DeepGuard::load(Cpu::new(), "models/smollm2-135m")?;
//!
//!     // Train on pairs of functions; `()` observes nothing. A finished run is attached with `guard.attach(dir)`.
//!     let config = TrainConfig {
//!         model: "models/smollm2-135m".into(),
//!         data: "data".into(),
//!         output_dir: "runs/first".into(),
//!         ..TrainConfig::default()
//!     };
//!     guard.train(&config, &mut ())?;
//!
//!     let scores = guard.score("query = \"SELECT * FROM users WHERE name = '\" + name + \"'\"\n")?;
//!     println!("mean score {:.4}", scores.mean);
//!
//!     let options = GenerateOptions {
//!         max_new_tokens: 64,
//!         num_samples: 1,
//!         sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 42 },
//!         guided: true,
//!         rescore_every: 0,
//!         stop_tokens: Vec::new(),
//!     };
//!     let generated = guard.generate("def find_user(connection, name):\n", &options, &mut |_, _| true)?;
//!     println!("{}", guard.tokenizer.decode(&generated.samples[0])?);
//!     Ok(())
//! }
//! ```
//!
//! `examples/score.rs` and `examples/train.rs` are complete programs.
//!
//! # Modules
//!
//! Imports point downward:
//!
//! ```text
//! cli                                       arguments → resolved options → one match on the device
//! report                                    pages of scores and runs, SARIF
//! deepguard                                 the front door: load, attach, train, score, generate
//! train   decode   export   import          the loops; merged models; GGUF files
//! adapter   init   attached                 adapter folders, initial values, what is added to a base model
//! guard                                     aggregator, analyzer, token statistics
//! model                                     Transformer blocks, LoRA, taps, tokenizer, weights
//! ops                                       every operation's contract, device memory
//! cpu   cuda                                the contracts fulfilled
//! ```
//!
//! - [`cli`] is `dg-run`.
//! - [`mod@deepguard`] has [`DeepGuard`], a model with its tokenizer and its guard.
//! - [`report`] makes pages of scores and of runs, and SARIF.
//! - [`train`] has data, packed batches, the joint objective, the loop and checkpoints.
//! - [`decode`] has prefill, decoding, guidance and scoring.
//! - [`export`] merges an adapter into its base model; [`mod@import`] makes GGUF files Hugging Face directories.
//! - [`adapter`] reads and writes folders in PEFT's format with the guard beside it; [`attached`] and [`init`] are the
//!   parameters in them, and their initial values.
//! - [`guard`] and [`model`] are the computation, written once for every [`ops::Backend`]; they name no device.
//! - [`ops`] has a trait per family of operations, which says what is written, added to and kept; [`cpu`] is the backend.
//! - [`cuda`] has the kernels for NVIDIA GPUs, on their way to becoming one.
//! - [`mod@error`], [`files`], [`manifest`] and [`system`] serve all: errors with exit codes, files that are written whole
//!   or not at all, folders in which every changed bit is noticed, and the memory that the process may have.
//!
//! `cpu` is below `ops` in that nothing above names it but the top and [`export`], which merges on the CPU. What points
//! upward is one type: [`model::weights::TensorView`], a tensor in a mapped file, which backends load weights from.

pub mod adapter;
pub mod attached;
pub mod cli;
pub mod cpu;
pub mod cuda;
pub mod decode;
pub mod deepguard;
pub mod error;
pub mod export;
pub mod files;
pub mod guard;
pub mod import;
pub mod init;
pub mod manifest;
pub mod model;
pub mod ops;
pub mod probe;
pub mod report;
pub mod system;
pub mod train;
mod unfinished;

pub use deepguard::DeepGuard;
pub use error::{Error, ErrorKind, Result};

/// The snippets of the README, compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
