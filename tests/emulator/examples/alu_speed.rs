//! Nanoseconds per warp instruction, with all lanes and with some, to be run in a release build.

use cuda_emulator::alu::lookup;
use cuda_emulator::row::{AluArgs, Row};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let opcodes = [
        "add.s32",
        "mad.lo.s32",
        "mad.wide.s32",
        "mul.hi.u32",
        "div.u32",
        "shl.b32",
        "shl.b64",
        "bfe.u32",
        "bfi.b32",
        "lop3.b32",
        "prmt.b32",
        "popc.b32",
        "selp.b32",
        "mov.b32",
        "add.s64",
        "setp.lt.s32",
        "setp.lt.s64",
        "setp.lt.f32",
        "setp.lt.and.s32",
        "and.pred",
        "add.f32",
        "fma.rn.f32",
        "fma.rn.ftz.f32",
        "fma.rn.sat.f32",
        "max.f32",
        "div.full.f32",
        "div.rn.f32",
        "sqrt.approx.f32",
        "rcp.approx.ftz.f32",
        "rsqrt.approx.f32",
        "ex2.approx.f32",
        "ex2.approx.ftz.f32",
        "lg2.approx.f32",
        "sin.approx.f32",
        "tanh.approx.f32",
        "fma.rn.f64",
        "cvt.rn.bf16x2.f32",
        "cvt.rn.f16x2.f32",
        "cvt.rn.bf16.f32",
        "cvt.rn.f16.f32",
        "cvt.f32.bf16",
        "cvt.f32.f16",
        "cvt.rn.f32.s32",
        "cvt.rzi.s32.f32",
        "cvt.s64.s32",
        "cvt.u32.u64",
        "cvt.rna.tf32.f32",
        "fma.rn.f16x2",
        "fma.rn.bf16x2",
        "mul.bf16x2",
        "add.f16x2",
        "max.bf16x2",
        "cvt.rn.satfinite.e4m3x2.f32",
        "cvt.rn.f16x2.e4m3x2",
        "fma.rz.f32",
    ];
    let mut rows: Vec<Row> =
        (0..32u32).map(|r| Row(std::array::from_fn(|i| 0x3f80_1234 ^ (r * 977 + i as u32 * 131)))).collect();
    let mut preds = [0x5555_3333u32; 8];
    let args = AluArgs { dst: [0, 6], src: [4, 8, 12, 16] };
    let preds_args = |kinds: [cuda_emulator::row::Kind; 4]| {
        let mut args = args;
        for (source, kind) in args.src.iter_mut().zip(kinds) {
            if kind == cuda_emulator::row::Kind::Pred {
                *source /= 4;
            }
        }
        args
    };
    for opcode in opcodes {
        let mut parts = opcode.split('.');
        let base = parts.next().unwrap_or_default();
        let modifiers: Vec<&str> = parts.collect();
        let op = lookup(base, &modifiers).unwrap_or_else(|| panic!("no {opcode}"));
        let args = preds_args(op.src);
        for mask in [u32::MAX, 0x0fff_ffff] {
            let start = Instant::now();
            let count = 200_000;
            for _ in 0..count {
                // SAFETY: all indices lie inside of the two arrays.
                unsafe { (op.run)(black_box(rows.as_mut_ptr()), preds.as_mut_ptr(), black_box(&args), mask) };
            }
            print!("{:8.1}", start.elapsed().as_secs_f64() / count as f64 * 1e9);
        }
        println!("  {opcode}");
    }
}
