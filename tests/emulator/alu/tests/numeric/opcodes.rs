//! What the table has, what it refuses, and how it classes.

use crate::machine::find;
use cuda_emulator_alu::{Class, class};

/// Arithmetic that compiled kernels use: vector addition, softmax, gathers, atomics and matrix products.
const USED: &str = "
    abs.s32 add.f32 add.s32 add.s64 and.b32 and.pred bfe.s32 bfe.u32 cvt.f32.bf16 cvt.rn.bf16.f32 cvt.rn.bf16x2.f32
    cvt.s64.s32 cvt.u32.u64 cvt.u64.u32 div.full.f32 ex2.approx.f32 fma.rn.f32 mad.lo.s32 mad.wide.s32 mad.wide.u32
    max.f32 mov.b16 mov.b32 mov.pred mov.u16 mov.u32 mov.u64 mul.f32 mul.lo.s32 mul.wide.s32 mul.wide.u32 neg.s32
    or.b32 or.b64 selp.b32 setp.eq.b32 setp.gt.s32 setp.gt.s64 setp.lt.s32 setp.lt.s64 setp.ne.b32 shl.b32 shl.b64
    shr.s32 shr.u32 sub.f32 xor.b32";

/// Arithmetic that compilers emit elsewhere.
const USUAL: &str = "
    add.cc.u32 addc.u32 addc.cc.u32 add.f64 add.rn.f32 add.ftz.f32 and.b64 brev.b32 bfi.b32 clz.b32 clz.b64
    cvt.f32.f16 cvt.f64.f32 cvt.rmi.f32.f32 cvt.rn.f16.f32 cvt.rn.f16x2.f32 cvt.rn.f32.f64 cvt.rn.f32.s32
    cvt.rn.f32.u32 cvt.rn.f64.s32 cvt.rna.tf32.f32 cvt.rni.s32.f32 cvt.rzi.s32.f32 cvt.rzi.u32.f32 cvt.s16.s8
    cvt.s32.s16 cvt.s32.s8 cvt.u16.u32 cvt.u16.u8 cvt.u32.u16 cvt.u8.u32 cvt.rn.satfinite.e4m3x2.f32
    cvt.rn.satfinite.e5m2x2.f16x2 cvt.rn.f16x2.e4m3x2 div.rn.f32 div.rn.f64 div.s32 div.u32 div.u64 dp4a.s32.s32
    ex2.approx.ftz.f32 ex2.approx.f16x2 fma.rn.bf16 fma.rn.bf16x2 fma.rn.f16 fma.rn.f16x2 fma.rn.f64
    fma.rn.ftz.f32 lg2.approx.f32 lop3.b32 mad.lo.u64 max.NaN.f32 max.bf16x2 max.f64 max.s64 max.u32 min.f32 min.s32
    min.xorsign.abs.f32 mov.b64 mov.f32 mul.bf16x2 mul.f16x2 mul.hi.u32 mul.lo.s64 mul.rn.f32 mul.wide.u16 neg.f32
    neg.bf16x2 not.b32 not.pred or.pred popc.b32 popc.b64 prmt.b32 rcp.approx.ftz.f32 rcp.rn.f32 rem.s32 rem.u32
    rsqrt.approx.f32 selp.b64 selp.f32 set.eq.u32.u32 setp.eq.and.s32 setp.equ.f32 setp.ge.u32 setp.geu.f32
    setp.gt.f64 setp.ltu.f32 setp.nan.f32 setp.ne.s64 shf.l.wrap.b32 shf.r.clamp.b32 shr.s64 shr.u64 sin.approx.f32
    sqrt.approx.f32 sqrt.rn.f32 sub.s64 sub.rn.f32 sub.f16x2 subc.s32 tanh.approx.f32 xor.pred add.rn.f32x2
    fma.rn.f32x2";

/// Opcodes that do not exist or that the table does not know.
const REFUSED: &str = "
    add add.foo add.f32.f32 add.rn.rn.f32 add.rn.rz.f32 add.rn.f32.ftz.x add.rni.f32 fma.f32 fma.f64 fma.rn.s32 mad.f32
    mul.lo.f32 mul.wide.f32 div.f32 div.approx.f64 div.full.rn.f32 rcp.f32 rcp.approx.f64 sqrt.approx.rn.f32 ex2.f32
    ex2.approx.f64 tanh.f32 tanh.approx.ftz.f32 lg2.rn.f32 max.xorsign.f32 max.rn.f32 setp.f32 setp.lt setp.foo.f32
    setp.lt.nand.f32 setp.lt.u.s32 setp.ltu.s32 selp.pred mov.v2.b32 mov cvt cvt.f32 cvt.f32.f64 cvt.rn.s32.f32
    cvt.f32.s32 cvt.rni.f32.s32 cvt.rz.bf16.f32.relu.relu cvt.rn.e4m3x2.f32 cvt.rs.f16x2.f32 cvt.rn.u32.u64
    cvt.rna.f16.f32 prmt.b32.foo prmt.b64 lop3.or.b32 shl.u32 shf.l.b32 add.f16.rn.x ld.global.b32 bra bar.sync
    fma.rn.relu.sat.f16 fma.rn.ftz.bf16 add.sat.bf16 add.rz.f16";

#[test]
fn table_has_what_kernels_use() {
    for name in USED.split_whitespace().chain(USUAL.split_whitespace()) {
        assert!(find(name).is_some(), "{name}");
    }
}

#[test]
fn table_refuses_what_it_does_not_know() {
    for name in REFUSED.split_whitespace() {
        assert!(find(name).is_none(), "{name}");
    }
}

#[test]
fn classes_are_by_unit() {
    let of = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        class(parts[0], &parts[1..])
    };
    for name in ["add.s32", "mov.f32", "selp.f32", "setp.lt.f32", "cvt.rn.bf16x2.f32", "lop3.b32", "div.u32"]
    {
        assert_eq!(of(name), Class::Integer, "{name}");
    }
    for name in ["add.f32", "fma.rn.f64", "mul.bf16x2", "max.f16", "neg.f32", "fma.rn.f32x2"] {
        assert_eq!(of(name), Class::Float, "{name}");
    }
    for name in ["ex2.approx.f32", "div.full.f32", "rcp.rn.f32", "tanh.approx.bf16"] {
        assert_eq!(of(name), Class::Special, "{name}");
    }
}
