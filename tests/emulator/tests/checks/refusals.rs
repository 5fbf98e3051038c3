//! What is not supported is refused by name and line when a module is loaded.

use crate::support::Case;

#[track_caller]
fn refused(line: &str, name: &str) {
    let case = Case::new(&format!("mov.u32 %r1, 0;\n{line}"));
    let at = case.ptx().lines().position(|l| l == line).expect("is there") + 1;
    let message = case.refused();
    assert!(message.contains(&format!("line {at}:")) && message.contains(name), "{line}: {message}");
}

#[test]
fn opcodes() {
    for (line, name) in [
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];", "tex.2d"),
        ("suld.b.1d.b32.trap %r1, [%rd1, {%r1}];", "suld"),
        ("multimem.ld_reduce.global.add.u32 %r1, [%rd1];", "multimem"),
        ("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 32;", "tcgen05"),
        ("frobnicate.u32 %r1, %r2;", "frobnicate"),
        ("alloca.u64 %rd1, 16;", "alloca"),
        ("call (%r1), %rd1, (%r2), proto;", "call"),
        ("wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1}, [%rd1];", "wmma"),
    ] {
        refused(line, name);
    }
}

#[test]
fn modifiers() {
    for (line, name) in [
        ("ld.global.frob.u32 %r1, [%rd1];", "frob"),
        ("ld.global.u128 %r1, [%rd1];", "u128"),
        ("atom.global.mul.u32 %r1, [%rd1], 2;", "mul"),
        ("atom.global.add.u8 %r1, [%rd1], 2;", "u8"),
        ("red.async.relaxed.cluster.global.add.u32 [%rd1], 2;", "async"),
        ("shfl.up.b32 %r1, %r2, 1, 0;", "shfl.up"),
        ("shfl.sync.rot.b32 %r1, %r2, 1, 0, -1;", "rot"),
        ("vote.ballot.b32 %r1, %p1;", "vote.ballot"),
        ("mbarrier.arrive.frob.shared.b64 %rd1, [%r1];", "frob"),
        ("fence.proxy.frob;", "frob"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 12;", "12"),
        ("cp.async.cg.shared.global [%r1], [%rd1], 8;", "8"),
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r1, %r2}], [%r3];",
            "im2col",
        ),
        ("mma.sync.aligned.m16n8k17.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r1}, {%f1};", "mma"),
        ("wgmma.mma_async.sync.aligned.m64n7k16.f32.f16.f16 {%f1}, %rd1, %rd2, 1, 1, 1, 0, 0;", "wgmma"),
        ("st.async.shared::cluster.mbarrier::complete_tx::bytes.u8 [%r1], %r2, [%r3];", "u8"),
    ] {
        refused(line, name);
    }
}

#[test]
fn operands() {
    for line in [
        "add.u32 %r1, %r2;",
        "add.u32 %r1, %r2, %r3, %r4;",
        "add.u32 %r1, %rd2, %r3;",
        "add.u32 %r1, %r2, %undeclared;",
        "add.u32 5, %r2, %r3;",
        "bra nowhere;",
        "ld.global.u32 %r1, [%nobody];",
        "ld.global.u64 %r1, [%rd1];",
        "ld.global.v2.u32 %r1, [%rd1];",
        "ld.global.v4.u32 {%r1, %r2}, [%rd1];",
        "ld.global.u32 %r1, %rd1;",
        "st.global.u32 [%rd1], _;",
        "@%r1 add.u32 %r1, %r2, %r3;",
        "mov.b64 {%r1, %r2, %r3}, %rd1;",
        "bar.arrive 1;",
        "shfl.sync.idx.b32 %r1, %r2, 1;",
        "setp.eq.u32 %r1, %r2, %r3;",
        "brx.idx %r1, nolist;",
        "isspacep %p1, %rd1;",
        "mbarrier;",
        "bar;",
        "mov.u32 %r1, %nosuchspecial;",
        "cvta.shared.u32 %r1, %r2;",
        "wgmma.wait_group.sync.aligned %r1;",
    ] {
        refused(line, "");
    }
}

#[test]
fn declarations() {
    for (line, name) in [
        (".reg .b24 %x;", "b24"),
        (".reg .b32 %x<4294967295>;", "4294967295"),
        (".reg .b32 %x<18446744073709551616>;", "18446744073709551616"),
        (".shared .b8 big[9223372036854775808];", "absurd"),
        (".shared .b8 big[33554432];", "big"),
        (".local .b8 big[1048576];", "big"),
        (".shared .align 3 .b8 odd[4];", "3"),
        (".shared .align 4294967296 .b8 odd[4];", "4294967296"),
        (".frobnicate 5;", "frobnicate"),
        (".tex .u64 t;", "tex"),
    ] {
        refused(line, name);
    }
}
