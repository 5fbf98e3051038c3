//! Mutants of `kernels/arrival.h`: blocks that count themselves, of which the last puts together what all have left.

use super::edit::{instead, remove, swap};
use super::harness::{Mutant, mutant};

/// In place of an atomic addition whose result is used.
pub const LOAD_ADD_STORE: &str =
    "ld.volatile.global.u32 $0, $1; add.u32 $0, $0, $2; st.volatile.global.u32 $1, $0;";

/// Of a kernel, with the number of its barrier before the arrival.
pub fn mutants(barrier: &'static [usize]) -> Vec<Mutant> {
    vec![
        mutant(
            "the arrival does not wait",
            [remove("bar.sync", barrier)],
            "Other warps may not have written what the last block puts together.",
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
            "Nobody is the last.",
        ),
        mutant(
            "the last block leaves the count as it is",
            [remove("st.global.u32", &[0])],
            "The next launch starts to count there.",
        ),
    ]
}
