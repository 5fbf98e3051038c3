//! Evaluation of generated code: suites of scenarios, a judge that runs their checks in a sandbox, and the
//! rates that follow. A completion is secure only if every functional and every security check of its
//! scenario ran and passed; whatever did not run is unknown, and unknown is never secure.

pub mod compare;
mod differences;
pub mod environment;
pub mod judge;
pub mod judging;
pub mod lines;
pub mod metrics;
pub mod presets;
pub mod rates;
pub mod references;
pub mod run;
pub mod samples;
pub mod sampling;
pub mod sandbox;
pub mod seal;
pub mod statistics;
pub mod stop;
pub mod suite;
pub mod verdict;
mod work;
