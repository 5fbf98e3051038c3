//! Modules that are damaged or absurd: the loader must end in good time, with an error that names a line or
//! with a module, and never panic.

#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda_emulator::machine::Module;
use cuda_emulator::memory::global::GlobalMemory;

use support::tensors::{COPY, DESCRIPTORS, MULTIPLY, STORE};
use support::{Case, Map};

/// Modules with something of everything.
fn modules() -> Vec<String> {
    let functions = ".global .align 8 .u64 pointers[2] = {table, generic(table)+4};\n.global .align 4 .f32 table[4] = {0f3F800000, 1.5, -2};\n.extern .shared .align 16 .b8 dynamic[];\n\
        .func (.param .b32 r) twice(.param .b32 x)\n{\n.reg .b32 %r<3>;\nld.param.u32 %r1, [x];\nadd.u32 %r2, %r1, %r1;\nst.param.b32 [r], %r2;\nret;\n}";
    let mixed = "{ .param .b32 a; .param .b32 r; st.param.b32 [a], %t; call.uni (r), twice, (a); ld.param.b32 %r2, [r]; }\n\
        TS: .branchtargets A, B;\nsetp.lt.u32 %p1|%p2, %t, 5;\n@!%p1 brx.idx %r1, TS;\nA: shfl.sync.up.b32 %r1|%p1, %r1, 1, 0, -1;\nvote.sync.ballot.b32 %r2, !%p1, -1;\nmatch.all.sync.b64 %r3|%p3, %rd1, -1;\n\
        B: redux.sync.add.u32 %r1, %r2, -1;\nelect.sync _|%p1, -1;\natom.global.v2.f32.add {%f1, _}, [%a0+8], {%f2, %f3};\nred.shared.add.u32 [dynamic+4], 1;\natom.cas.b128 %q1, [%a0], %q2, %q3;\n\
        mbarrier.init.shared.b64 [dynamic], 4;\nmbarrier.arrive.expect_tx.shared::cta.b64 %rd1, [dynamic], 64;\nmbarrier.try_wait.parity.shared.b64 %p1, [dynamic], 0, 100;\nmbarrier.pending_count.b64 %r1, %rd1;\n\
        cp.async.cg.shared.global [%r1], [%rd1+16], 16, %r2;\ncp.async.commit_group;\ncp.async.wait_group 1;\ncp.async.mbarrier.arrive.noinc.shared.b64 [%r1];\n\
        cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%rd1, {%r2, %r3}], [%r4], %h1;\n\
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd1], [%r1], 64;\ncp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;\n\
        st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.u32 [%r1], {%r2, %r3}, [%r4];\ntensormap.replace.tile.global_dim.global.b1024.b32 [%rd1], 1, %r1;\n\
        bar.red.and.pred %p1, 1, 64, !%p2;\nbarrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\nmapa.shared::cluster.u32 %r1, %r2, 1;\nisspacep.shared::cta %p1, %rd1;\ncvta.to.global.u64 %rd1, %rd2;\n\
        mov.b64 {%h1, %h2, %h3, %h4}, %rd1;\nmov.b128 %q1, {%rd1, %rd2};\nadd.cc.u32 %r1, %r2, 0x1F;\naddc.u32 %r1, %r2, -1;\nfma.rn.f32 %f1, %f2, 0f3F800000, 1.5;\ncvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2;\nlop3.b32 %r1, %r2, %r3, %r4, 0x96;\nprmt.b32 %r1, %r2, %r3, 0x5410;\n\
        .loc 1 5 6\n.pragma \"nounroll\";\n/* a comment\nof two lines */ ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r1, %r2, %r3, %r4}, [%r5]; // and another\nmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};";
    let multiply = Case::new(&format!("{COPY}{DESCRIPTORS}{MULTIPLY}{STORE}")).zeros(4).zeros(4);
    let mut mixed = Case::new(mixed).outside(".file 1 \"a.cu\"").outside(functions).zeros(4);
    mixed.maps = vec![Map { buffer: 0, dims: vec![8], boxes: vec![8], swizzle: 0 }];
    vec![mixed.ptx(), multiply.ptx()]
}

/// Loads a text; panics if that panicked, took long, or failed without a line.
#[track_caller]
fn load(text: &str) -> Result<(), String> {
    let memory = Arc::new(GlobalMemory::new(1 << 26));
    let started = Instant::now();
    let loaded = catch_unwind(AssertUnwindSafe(|| Module::load(text, &memory).map(|_| ())));
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    assert_eq!(memory.info().0, 1 << 26, "memory was not given back");
    match loaded {
        Err(_) => panic!("the loader panicked on\n{text}"),
        Ok(Err(message)) => {
            assert!(message.contains("line "), "no line: {message}");
            Err(message)
        }
        Ok(Ok(())) => Ok(()),
    }
}

#[test]
fn the_whole_modules_load() {
    for text in modules() {
        load(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
}

#[test]
fn texts_that_end_early() {
    for text in modules() {
        let end = text.rfind('}').expect("a body");
        for length in (0..text.len()).step_by(97).chain(0..64) {
            let cut = &text[..length];
            // What ends between two declarations is whole, but for the kernel.
            let whole = length > end || !cut.contains(".entry");
            assert!(load(cut).is_err() || whole, "loaded the first {length} bytes");
        }
    }
}

/// A sequence of numbers that depends on its seed only.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Words, numbers, signs and blanks.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || "_%$".contains(c);
        let end = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        tokens.push(&rest[..end]);
        rest = &rest[end..];
    }
    tokens
}

#[test]
fn tokens_lost_doubled_swapped_and_replaced() {
    let strange = [
        "{",
        "}",
        "(",
        "[",
        "|",
        "!",
        "-",
        "\"",
        "4294967296",
        "0x",
        "-1",
        "é",
        "\u{0}",
        "_",
        "99999999999999999999999999999999999999999",
        ".",
        "%",
        "generic",
        "/*",
        "0f",
        "+",
    ];
    for (n, text) in modules().iter().enumerate() {
        let tokens = tokens(text);
        let mut random = Random(n as u64);
        for _ in 0..4000 {
            let mut damaged = tokens.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len());
                match random.below(4) {
                    0 => drop(damaged.remove(at)),
                    1 => damaged.insert(at, damaged[at]),
                    2 => {
                        let other = random.below(damaged.len());
                        damaged.swap(at, other);
                    }
                    _ => damaged[at] = strange[random.below(strange.len())],
                }
            }
            // Whether it loads depends on what was hit.
            let _ = load(&damaged.concat());
        }
    }
}

#[test]
fn absurd_numbers() {
    for line in [
        ".reg .b32 %x<4294967295>;",
        ".reg .b32 %x<4294967296>;",
        ".reg .b32 %x<99999999999999999999999999>;",
        ".reg .b128 %x<1000000>;",
        ".shared .b8 x[9223372036854775808];",
        ".shared .b64 x[4294967296][4294967296];",
        ".local .b8 x[18446744073709551615];",
        ".local .align 9223372036854775808 .b8 x[4];",
        ".shared .align 0 .b8 x[4]; .shared .align 7 .b8 y[4];",
        "bar.sync 99999999999999999999999999999999999999999999999;",
        "ld.global.u32 %r1, [%a0+99999999999999999999];",
    ] {
        let text = Case::new(line).zeros(4).ptx();
        assert!(load(&text).is_err(), "loaded {line}");
    }
    for outside in [
        ".global .b8 x[9223372036854775807];",
        ".global .b8 x[1099511627775];",
        ".global .align 8192 .b8 x[4];",
        ".global .b8 x[2] = {1, 2, 3};",
        ".global .u64 x = nobody;",
        ".const .align 2147483648 .b8 x[4];",
        ".global .b8 x[4];\n.global .b8 x[4];",
        ".extern .shared .align 2147483648 .b8 x[];",
    ] {
        let text = Case::new("").outside(outside).ptx();
        assert!(load(&text).is_err(), "loaded {outside}");
    }
    for directive in [
        ".maxntid 4294967297",
        ".maxntid 65536, 65536, 65537",
        ".reqntid 99999999999999999999",
        ".frobnicate 5",
    ] {
        let text = Case::new("").ptx().replace(".entry k()", &format!(".entry k() {directive}"));
        assert!(load(&text).is_err(), "loaded {directive}");
    }
    for param in [".param .align 9223372036854775808 .b8 x[4]", ".param .b8 x[1099511627776]"] {
        let text = Case::new("").ptx().replace(".entry k()", &format!(".entry k({param})"));
        assert!(load(&text).is_err(), "loaded {param}");
    }
}

#[test]
fn operands_nested_without_end() {
    for (open, close) in [("{", "}"), ("(", ")"), ("[%r1, ", "]")] {
        let text =
            Case::new(&format!("mov.u32 %r1, {}5{};", open.repeat(100_000), close.repeat(100_000))).ptx();
        assert!(load(&text).is_err());
    }
    let text = Case::new("")
        .outside(&format!(".global .u32 x = {}1{};", "{".repeat(100_000), "}".repeat(100_000)))
        .ptx();
    load(&text).expect("braces of an initialiser are only counted");
    let text = Case::new(&format!("{}{}", "{".repeat(100_000), "}".repeat(100_000))).ptx();
    load(&text).expect("blocks nest");
}

#[test]
fn functions_that_call_themselves_or_too_many_others() {
    let text = Case::new("call f;").outside(".func f() { call f; ret; }").ptx();
    assert!(load(&text).expect_err("refused").contains("recursion"));
    // Every function calls the next one twice: 2^40 instructions in place.
    let mut outside = String::from(".func f40() { .reg .b32 %r<2>; add.u32 %r1, %r1, 1; ret; }\n");
    for n in (0..40).rev() {
        outside += &format!(".func f{n}() {{ call f{}; call f{}; ret; }}\n", n + 1, n + 1);
    }
    let text = Case::new("call f0;").outside(&outside).ptx();
    assert!(load(&text).is_err());
    // A chain of 10000.
    let mut outside = String::from(".func f10000() { ret; }\n");
    for n in (0..10000).rev() {
        outside += &format!(".func f{n}() {{ call f{}; ret; }}\n", n + 1);
    }
    let text = Case::new("call f0;").outside(&outside).ptx();
    assert!(load(&text).is_err());
}

#[test]
fn registers_declared_again_and_again() {
    let text = Case::new(&"{ .reg .b128 %x<60000>; }\n".repeat(1000)).ptx();
    assert!(load(&text).is_err());
    let text = Case::new(&".local .b8 x[60000];\n".repeat(1000)).ptx();
    assert!(load(&text).is_err());
}

#[test]
fn texts_that_are_no_ptx() {
    for text in [
        "",
        "\n\n",
        "hello",
        "\u{7f}ELF",
        ".version 8.6",
        ".target",
        ".target sm_90",
        "/*",
        "\"",
        ".version 8.6\n.target sm_90\n}",
        "//",
    ] {
        if text != ".target sm_90" {
            assert!(load(text).is_err(), "loaded {text:?}");
        }
    }
}
