//! An instruction has two executors, one of which needs a processor with wide vectors.

use cuda_emulator_alu::execute::{LaneFn, Sources, executor, portable_executor, vectorized};
use cuda_emulator_alu::numeric::half::F16;
use cuda_emulator_alu::numeric::{bits, half, narrow, round, single, special};
use cuda_emulator_alu::row::{AluArgs, AluFn, Row};

use crate::required::not_tested;

/// Runs both executors on the same registers, where the processor allows, and compares all of them
/// afterwards.
fn check<S: Sources, F: LaneFn<S>>(body: F) {
    if !vectorized() {
        return not_tested("the processor has no AVX2");
    }
    for mask in [u32::MAX, 0, 1, 0x8000_0000, 0x1234_5678] {
        let pattern = |row: usize, lane: usize| {
            (row as u32 + 1).wrapping_mul(0x9e37_79b9) ^ (lane as u32).wrapping_mul(0x85eb_ca6b)
        };
        let rows: [Row; 24] = std::array::from_fn(|row| Row(std::array::from_fn(|lane| pattern(row, lane))));
        let preds: [u32; 24] = std::array::from_fn(|i| pattern(i, i));
        let args = AluArgs { dst: [0, 4], src: [8, 12, 16, 20] };
        let run = |executor: AluFn| {
            let (mut rows, mut preds) = (rows, preds);
            // SAFETY: operands of up to four rows lie inside of both arrays, and the features were
            // detected.
            unsafe { executor(rows.as_mut_ptr(), preds.as_mut_ptr(), &args, mask) };
            (rows, preds)
        };
        assert!(run(executor(body)) == run(portable_executor(body)));
    }
}

#[test]
fn executors_agree() {
    check(single::fma::<round::Rn, true, false>);
    check(single::extremum::<true, false, false>);
    check(half::fma::<F16, false, false>);
    check(half::mul::<half::Bf16, false, false>);
    check(special::ex2::<false>);
    check(|a: f32, b: f32| narrow::encode_pair::<narrow::E4m3>(a, b, true));
    check(bits::bfe_s64);
    check(bits::lop3);
    check(|a: i64, b: i64| (a < b, a >= b));
    check(|a: u64, b: u64, c: bool| if c { a } else { b });
    check(|a: u128| a);
}
