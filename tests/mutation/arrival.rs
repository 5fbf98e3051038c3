//! Mutants of `kernels/arrival.h`: an arrival counter, by which the last block knows that it reduces what all
//! have written.

use super::edit::{instead, remove, swap};
use super::harness::{Mutant, mutant};

/// In place of an atomic addition whose result is used.
pub const LOAD_ADD_STORE: &str =
    "ld.volatile.global.u32 $0, $1; add.u32 $0, $0, $2; st.volatile.global.u32 $1, $0;";

/// Mutants of a kernel; `barrier` is the number of its barrier before the arrival.
pub fn mutants(barrier: &'static [usize]) -> Vec<Mutant> {
    vec![
        mutant(
            "the arrival does not wait",
            [remove("bar.sync", barrier)],
            "Other warps may not have written the partial results that the last block reduces.",
        ),
        mutant(
            "fences removed",
            [remove("membar.gl", &[])],
            "An atomic alone does not order what was written before it.",
        ),
        mutant(
            "the arrival is no atomic",
            [instead("atom.global.add", &[0], LOAD_ADD_STORE)],
            "Two blocks may count from the same number.",
        ),
        mutant(
            "a block does not arrive",
            [swap("atom.global.add", &[0], ", 1;", ", 0;")],
            "No block is the last.",
        ),
        mutant(
            "the last block does not reset the counter",
            [remove("st.global.u32", &[0])],
            "The next launch starts to count there.",
        ),
    ]
}
