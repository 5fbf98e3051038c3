//! The CPU backend against numbers computed by the published PyTorch code.
//!
//! Runs every case found in `cases/` of the folder `DG_GOLDEN_DIR` (default: `tests/golden`). A case on
//! SmolLM2-135M needs that model in `DG_SMOLLM2_DIR` (default: `models/smollm2-135m`). One line per case: the
//! worst error / tolerance of every quantity, and how many numbers were compared.

mod golden_cases;
#[path = "common/places.rs"]
mod places;

use deepguard::cpu::Cpu;
use golden_cases::Precision;

#[test]
fn every_golden_case() {
    golden_cases::files::run_all(Cpu::new, Precision::F32, |_| true);
}

#[test]
fn every_case_of_sven() {
    golden_cases::files::run_sven(Cpu::new, Precision::F32, |_| true);
}
