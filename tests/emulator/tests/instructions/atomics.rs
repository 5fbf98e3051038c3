//! `atom` and `red`.

use half::{bf16, f16};

use crate::support::{Buffer, Case, words};

/// Applies an operation once, by lane 0, to a location in global and in shared memory; returns old and new
/// bits of each.
fn once(op: &str, ty: &str, bits: u32, start: u64, operands: &[u64]) -> [(u64, u64); 2] {
    let register = match bits {
        16 => ("%h2", "u16", "%h3", "%h4"),
        64 => ("%rd10", "b64", "%rd11", "%rd12"),
        _ => ("%r10", "b32", "%r11", "%r12"),
    };
    let (old, width, first, second) = register;
    let values = match operands {
        [_] => first.to_owned(),
        _ => format!("{first}, {second}"),
    };
    let body = format!(
        ".shared .align 8 .b64 cell;\nsetp.ne.u32 %p1, %t, 0; @%p1 ret;\n\
         ld.global.{width} {first}, [%a1]; ld.global.{width} {second}, [%a1+8]; ld.global.b64 %rd5, [%a1+16];\n\
         st.shared.b64 [cell], %rd5; st.global.b64 [%a0+16], %rd5; st.global.b64 [%a0+48], %rd5;\n\
         st.global.b64 [%a0], 0; st.global.b64 [%a0+24], 0;\n\
         atom.global.{op}.{ty} {old}, [%a0+16], {values}; st.global.{width} [%a0], {old};\n\
         atom.shared.{op}.{ty} {old}, [cell], {values}; st.global.{width} [%a0+24], {old};\n\
         ld.shared.b64 %rd5, [cell]; st.global.b64 [%a0+32], %rd5;\n\
         red.global.{op}.{ty} [%a0+48], {values};"
    );
    let body = if matches!(op, "cas" | "exch") { body.replace("red.global", "//") } else { body };
    let mut input: Vec<u8> = operands.iter().flat_map(|o| o.to_le_bytes()).collect();
    input.resize(16, 0);
    input.extend(start.to_le_bytes());
    let run = Case::new(&body)
        .zeros(56)
        .buffer(Buffer::Bytes(input))
        .run()
        .unwrap_or_else(|f| panic!("{}", f.fault));
    let word =
        |n: usize| u64::from_le_bytes(run.buffers[0][8 * n..8 * n + 8].try_into().expect("eight bytes"));
    if !matches!(op, "cas" | "exch") {
        assert_eq!(word(6), word(2), "red.{op}.{ty} differs from atom");
    }
    [(word(0), word(2)), (word(3), word(4))]
}

fn check(op: &str, ty: &str, bits: u32, start: u64, operands: &[u64], expected: u64) {
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    for (old, new) in once(op, ty, bits, start, operands) {
        assert_eq!(old, start & mask, "old of {op}.{ty}");
        let untouched = start & !mask;
        assert_eq!(new, expected & mask | untouched, "{op}.{ty} of {start:#x} and {operands:x?}");
    }
}

#[test]
fn integers() {
    let minus = |n: i64| n as u64;
    for (ty, bits) in [("u32", 32), ("u64", 64)] {
        check("add", ty, bits, minus(-1), &[3], 2);
        check("min", ty, bits, minus(-1), &[3], 3);
        check("max", ty, bits, minus(-1), &[3], minus(-1));
    }
    for (ty, bits) in [("s32", 32), ("s64", 64)] {
        check("min", ty, bits, minus(-5), &[3], minus(-5));
        check("max", ty, bits, minus(-5), &[3], 3);
        check("min", ty, bits, 7, &[minus(-9)], minus(-9));
    }
    check("add", "s32", 32, 0x7FFF_FFFF, &[1], 0x8000_0000);
    for (ty, bits) in [("b32", 32), ("b64", 64)] {
        check("and", ty, bits, 0xF0F0, &[0x3C3C], 0x3030);
        check("or", ty, bits, 0xF0F0, &[0x3C3C], 0xFCFC);
        check("xor", ty, bits, 0xF0F0, &[0x3C3C], 0xCCCC);
        check("exch", ty, bits, 0xF0F0, &[0x3C3C], 0x3C3C);
    }
}

/// "Atomic instructions: atom": inc is `old >= b ? 0 : old + 1`, dec is `(old == 0 || old > b) ? b : old -
/// 1`.
#[test]
fn increments_and_decrements_wrap() {
    for (start, bound, expected) in
        [(3, 5, 4), (5, 5, 0), (6, 5, 0), (0xFFFF_FFFF, 0xFFFF_FFFF, 0), (0, 0, 0)]
    {
        check("inc", "u32", 32, start, &[bound], expected);
    }
    for (start, bound, expected) in [(3, 5, 2), (0, 5, 5), (6, 5, 5), (5, 5, 4), (0xFFFF_FFFF, 1, 1)] {
        check("dec", "u32", 32, start, &[bound], expected);
    }
}

#[test]
fn compare_and_swap_of_every_width() {
    for (ty, bits) in [("b16", 16), ("b32", 32), ("b64", 64)] {
        check("cas", ty, bits, 0x1234, &[0x1234, 0x4321], 0x4321);
        check("cas", ty, bits, 0x1234, &[0x1235, 0x4321], 0x1234);
    }
    check("cas", "b16", 16, 0xAAAA_BBBB_CCCC_1234, &[0x1234, 0xFFFF], 0xFFFF);
}

#[test]
fn compare_and_swap_and_exchange_of_128_bits() {
    for space in ["global", "shared"] {
        let body = format!(
            ".shared .align 16 .b8 cell[16];\nsetp.ne.u32 %p1, %t, 0; @%p1 ret;\n\
             mov.b128 %q1, {{1, 2}}; mov.b128 %q2, {{3, 4}}; mov.b128 %q5, {{1, 3}};\n\
             mov.u64 %rd1, %a0; {}\nst.{space}.b128 [%rd1], %q1;\n\
             atom.{space}.cas.b128 %q3, [%rd1], %q5, %q2; st.global.b128 [%a0+16], %q3;\n\
             ld.{space}.b128 %q3, [%rd1]; st.global.b128 [%a0+32], %q3;\n\
             atom.{space}.cas.b128 %q3, [%rd1], %q1, %q2; ld.{space}.b128 %q3, [%rd1]; st.global.b128 [%a0+48], %q3;\n\
             atom.{space}.exch.b128 %q4, [%rd1], %q5; st.global.b128 [%a0+64], %q4;\n\
             ld.{space}.b128 %q3, [%rd1]; st.global.b128 [%a0+80], %q3;",
            if space == "shared" { "mov.u64 %rd1, cell;" } else { "" }
        );
        let run = Case::new(&body).zeros(96).run().unwrap_or_else(|f| panic!("{}", f.fault));
        let found: Vec<u64> = run.buffers[0]
            .chunks_exact(8)
            .map(|c| u64::from_le_bytes(c.try_into().expect("eight")))
            .collect();
        assert_eq!(found[2..], [1, 2, 1, 2, 3, 4, 3, 4, 1, 3], "{space}");
    }
}

#[test]
fn floating_point_numbers() {
    let f = |x: f32| u64::from(x.to_bits());
    check("add", "f32", 32, f(1.5), &[f(2.25)], f(3.75));
    check("add", "f64", 64, 1.5f64.to_bits(), &[2.25f64.to_bits()], 3.75f64.to_bits());
    let h = |x: f32| u64::from(f16::from_f32(x).to_bits());
    let b = |x: f32| u64::from(bf16::from_f32(x).to_bits());
    check("add.noftz", "f16", 16, h(1.5), &[h(2.25)], h(3.75));
    check("add.noftz", "bf16", 16, b(1.5), &[b(2.25)], b(3.75));
    let pair = |low: u64, high: u64| low | high << 16;
    check("add.noftz", "f16x2", 32, pair(h(1.5), h(-1.0)), &[pair(h(0.5), h(4.0))], pair(h(2.0), h(3.0)));
    check("add.noftz", "bf16x2", 32, pair(b(1.5), b(-1.0)), &[pair(b(0.5), b(4.0))], pair(b(2.0), b(3.0)));
    // One rounding: 2048 + 1 is a tie in f16 and goes to even.
    check("add.noftz", "f16", 16, h(2048.0), &[h(1.0)], h(2048.0));
    check("add.noftz", "f16", 16, h(2048.0), &[h(3.0)], h(2052.0));
}

#[test]
fn vectors_of_global_memory() {
    let body = "setp.ne.u32 %p1, %t, 0; @%p1 ret;\n\
        mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000; mov.f32 %f3, 0f40400000; mov.f32 %f4, 0f40800000;\n\
        atom.global.v4.f32.add {%f5, %f6, %f7, %f8}, [%a0], {%f1, %f2, %f3, %f4};\n\
        atom.global.v2.f32.add {%f5, _}, [%a0], {%f1, %f1};\nst.global.f32 [%a0+32], %f5;\n\
        red.global.v2.f32.add [%a0+16], {%f4, %f3};\n\
        mov.b32 %r1, 0x3C003C00;\nred.global.v4.f16x2.add.noftz [%a1], {%r1, %r1, %r1, %r1};\n\
        mov.b32 %r1, 0x3F803F80;\nred.global.v2.bf16x2.add.noftz [%a1+16], {%r1, %r1};\n\
        mov.b16 %h1, 0x3C00;\nred.global.v2.f16.add.noftz [%a1+24], {%h1, %h1};";
    let run = Case::new(body).zeros(40).zeros(32).run().unwrap_or_else(|f| panic!("{}", f.fault));
    let floats: Vec<f32> = words(&run.buffers[0]).into_iter().map(f32::from_bits).collect();
    assert_eq!(floats[..9], [2.0, 3.0, 3.0, 4.0, 4.0, 3.0, 0.0, 0.0, 1.0]);
    let expected =
        [0x3C00_3C00, 0x3C00_3C00, 0x3C00_3C00, 0x3C00_3C00, 0x3F80_3F80, 0x3F80_3F80, 0x3C00_3C00, 0];
    assert_eq!(words(&run.buffers[1]), expected);
}

/// Sums over blocks and machine threads lose nothing, whatever the width.
#[test]
fn concurrent_updates_are_not_lost() {
    let body = "red.global.add.u32 [%a0], 1;\nred.global.gpu.add.u64 [%a0+8], 0x100000001;\n\
        atom.global.inc.u32 %r1, [%a0+16], 0xFFFFFFFF;\nmov.b16 %h1, 0x3C00;\n\
        setp.lt.u32 %p1, %t, 1024; @%p1 red.global.add.noftz.f16 [%a0+20], %h1;\n\
        atom.global.max.u32 %r2, [%a0+24], %t;\nxor.b32 %r3, %t, 0; red.global.xor.b32 [%a0+28], %r3;\n\
        CAS: ld.relaxed.gpu.global.u32 %r4, [%a0+32]; add.u32 %r5, %r4, 2;\n\
        atom.global.cas.b32 %r6, [%a0+32], %r4, %r5; setp.ne.u32 %p2, %r6, %r4; @%p2 bra CAS;\n\
        setp.lt.u32 %p3, %t, 256;\n@!%p3 bra DONE;\n\
        CAS2: ld.relaxed.gpu.global.u16 %h4, [%a0+38]; add.u16 %h5, %h4, 1;\n\
        atom.global.cas.b16 %h6, [%a0+38], %h4, %h5; setp.ne.u16 %p2, %h6, %h4; @%p2 bra CAS2;\nDONE:";
    for threads in [1, 2, 4] {
        let mut case = Case::new(body).grid(64).block(96).zeros(40);
        case.threads = threads;
        let found = case.output(0);
        let n = 64 * 96;
        let h = u32::from(f16::from_f32(1024.0).to_bits());
        assert_eq!(found[..], [n, 0, n, n, n, h, n - 1, (0..n).fold(0, |x, i| x ^ i), 2 * n, 256 << 16]);
    }
}

#[test]
fn every_lane_gets_its_own_ticket() {
    for space in ["global", "shared"] {
        let body = format!(
            ".shared .align 4 .b32 cell;\nmov.u64 %rd1, %a1; {}\nsetp.eq.u32 %p1, %t, 0; @%p1 st.{space}.u32 [%rd1], 0;\n\
             bar.sync 0;\natom.{space}.add.u32 %r1, [%rd1], 1;\nmad.wide.u32 %rd2, %r1, 4, %a0;\n\
             atom.global.exch.b32 %r2, [%rd2], 1;\nadd.u32 %r2, %r2, 1; st.global.u32 [%rd2], %r2;",
            if space == "shared" { "mov.u64 %rd1, cell;" } else { "" }
        );
        assert_eq!(
            Case::new(&body).block(256).zeros(1024).zeros(4).output_of_seeds(0, 4),
            vec![1; 256],
            "{space}"
        );
    }
}

#[test]
fn scopes_and_orders_are_accepted() {
    let body = "atom.acq_rel.gpu.global.add.u32 %r1, [%a1], 1; atom.global.relaxed.sys.cas.b32 %r1, [%a1], 0, 1;\n\
        atom.add.release.cta.u32 %r1, [%a1], 1; red.relaxed.gpu.global.add.u32 [%a1], 1; atom.global.acquire.gpu.add.u32 _, [%a1], 1;\n\
        st.global.u32 [%o], 1;";
    assert_eq!(Case::new(body).zeros(128).zeros(4).output(0), vec![1; 32]);
}
