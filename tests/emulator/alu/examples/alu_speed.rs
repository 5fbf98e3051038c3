//! Nanoseconds per warp instruction, with all lanes active and with some, to be run in a release build.

use cuda_emulator_alu::lookup;
use cuda_emulator_alu::row::{AluArgs, Kind, Row};
use std::hint::black_box;
use std::time::Instant;

const OPCODES: &str = "
    add.s32 mad.lo.s32 mad.wide.s32 mul.hi.u32 div.u32 shl.b32 shl.b64 bfe.u32 bfi.b32 lop3.b32 prmt.b32
    popc.b32 selp.b32 mov.b32 add.s64 setp.lt.s32 setp.lt.s64 setp.lt.f32 setp.lt.and.s32 and.pred
    add.f32 fma.rn.f32 fma.rn.ftz.f32 fma.rn.sat.f32 max.f32 div.full.f32 div.rn.f32 sqrt.approx.f32
    rcp.approx.ftz.f32 rsqrt.approx.f32 ex2.approx.f32 ex2.approx.ftz.f32 lg2.approx.f32 sin.approx.f32
    tanh.approx.f32 fma.rn.f64 cvt.rn.bf16x2.f32 cvt.rn.f16x2.f32 cvt.rn.bf16.f32 cvt.rn.f16.f32
    cvt.f32.bf16 cvt.f32.f16 cvt.rn.f32.s32 cvt.rzi.s32.f32 cvt.s64.s32 cvt.u32.u64 cvt.rna.tf32.f32
    fma.rn.f16x2 fma.rn.bf16x2 mul.bf16x2 add.f16x2 max.bf16x2 cvt.rn.satfinite.e4m3x2.f32
    cvt.rn.f16x2.e4m3x2 fma.rz.f32";

/// Executions per measurement.
const COUNT: u32 = 10_000;
/// Measurements, the shortest of which is printed: others may use the processor at the same time.
const REPETITIONS: u32 = 20;

fn main() {
    let mut rows: Vec<Row> = (0..32u32)
        .map(|row| Row(std::array::from_fn(|lane| 0x3f80_1234 ^ (row * 977 + lane as u32 * 131))))
        .collect();
    let mut preds = [0x5555_3333u32; 8];
    for opcode in OPCODES.split_whitespace() {
        let parts: Vec<&str> = opcode.split('.').collect();
        let Some(op) = lookup(parts[0], &parts[1..]) else {
            println!("{opcode}: not in the table");
            continue;
        };
        let index = |i: usize, kind: Kind| if kind == Kind::Pred { i as u32 } else { 4 * i as u32 };
        let args = AluArgs {
            dst: std::array::from_fn(|i| index(i, op.dst[i])),
            src: std::array::from_fn(|i| index(2 + i, op.src[i])),
        };
        for mask in [u32::MAX, 0x0fff_ffff] {
            let mut best = f64::INFINITY;
            for _ in 0..REPETITIONS {
                let start = Instant::now();
                for _ in 0..COUNT {
                    // SAFETY: operands of up to four rows lie inside of the register file, which nothing else
                    // borrows.
                    unsafe {
                        (op.run)(black_box(rows.as_mut_ptr()), preds.as_mut_ptr(), black_box(&args), mask)
                    };
                }
                best = best.min(start.elapsed().as_secs_f64());
            }
            print!("{:8.1}", best / f64::from(COUNT) * 1e9);
        }
        println!("  {opcode}");
    }
}
