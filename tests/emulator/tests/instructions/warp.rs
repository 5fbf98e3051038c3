//! Shuffles, votes, matches, reductions of a warp.

use crate::support::{Case, each, lanes};

/// The rule of "Data Movement and Conversion Instructions: shfl.sync", written from its text: `c` holds the
/// clamp in bits 0–4 and the segment mask in bits 8–12.
fn source(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (clamp, segment) = (c & 31, c >> 8 & 31);
    let max = lane & segment | clamp & !segment & 31;
    let min = lane & segment;
    let b = b & 31;
    let (j, ok) = match mode {
        "up" => (lane.wrapping_sub(b), lane as i32 - b as i32 >= max as i32),
        "down" => (lane + b, lane + b <= max),
        "bfly" => (lane ^ b, lane ^ b <= max),
        _ => {
            let j = min | b & !segment & 31;
            (j, j <= max)
        }
    };
    if ok { (j, true) } else { (lane, false) }
}

#[test]
fn shuffles_in_every_mode_with_clamps_and_segments() {
    for mode in ["up", "down", "bfly", "idx"] {
        let clamps = if mode == "up" { [0, 0x1000, 0x1800, 0x1C00] } else { [31, 0x101F, 0x181F, 0x0707] };
        for c in clamps {
            for b in [0, 1, 3, 8, 16, 31, 33] {
                let body = format!(
                    "mad.lo.u32 %r1, %t, 7, 100; shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, 0xFFFFFFFF;\n\
                     selp.u32 %r3, 1000, 0, %p1; add.u32 %r2, %r2, %r3; st.global.u32 [%o], %r2;"
                );
                let expected = each(|t| {
                    let (from, ok) = source(mode, t, b, c);
                    7 * from + 100 + u32::from(ok) * 1000
                });
                assert_eq!(lanes(&body), expected, "{mode} {b} {c:#x}");
            }
        }
    }
}

#[test]
fn a_shuffle_by_the_lanes_own_index_into_its_own_register() {
    let body = "xor.b32 %r1, %t, 21; add.u32 %r2, %t, 9; shfl.sync.idx.b32 %r2, %r2, %r1, 31, -1; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| (t ^ 21) + 9));
    let body = "xor.b32 %r1, %t, 21; shfl.sync.idx.b32 %r1, %r1, %r1, 0x1F, -1; st.global.u32 [%o], %r1;";
    assert_eq!(lanes(body), each(|t| t ^ 21 ^ 21));
}

#[test]
fn shuffles_of_two_groups_of_a_diverged_warp() {
    let body = "setp.lt.u32 %p1, %t, 16; @%p1 bra LOW; shfl.sync.bfly.b32 %r1, %t, 1, 31, 0xFFFF0000; bra J;\n\
        LOW: shfl.sync.down.b32 %r1, %t, 4, 0xF, 0xFFFF;\nJ: st.global.u32 [%o], %r1;";
    assert_eq!(
        lanes(body),
        each(|t| if t < 12 {
            t + 4
        } else if t < 16 {
            t
        } else {
            t ^ 1
        })
    );
}

#[test]
fn lanes_that_come_later_are_waited_for() {
    let body = "setp.eq.u32 %p1, %t, 0; mov.u32 %r1, 0; mov.u32 %r2, 5; @%p1 bra SLOW; bra GO;\n\
        SLOW: add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 50; @%p2 bra SLOW; mov.u32 %r2, 6;\n\
        GO: shfl.sync.idx.b32 %r3, %r2, 0, 31, -1; st.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|_| 6));
}

#[test]
fn votes() {
    let body = "setp.lt.u32 %p1, %t, 5; vote.sync.ballot.b32 %r1, %p1, -1; vote.sync.ballot.b32 %r2, !%p1, -1; not.b32 %r2, %r2; setp.ne.u32 %p2, %r1, %r2; @%p2 trap;\n\
        vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1; vote.sync.uni.pred %p4, %p1, -1; vote.sync.uni.pred %p5, %p7, -1; vote.sync.all.pred %p6, !%p7, -1;\n\
        selp.u32 %r3, 100, 0, %p2; @%p3 add.u32 %r3, %r3, 200; @%p4 add.u32 %r3, %r3, 400; @%p5 add.u32 %r3, %r3, 1000; @%p6 add.u32 %r3, %r3, 2000;\n\
        add.u32 %r1, %r1, %r3; st.global.u32 [%o], %r1;";
    assert_eq!(lanes(body), each(|_| 31 + 3100));
    let body = "setp.lt.u32 %p1, %t, 16; @!%p1 bra J; and.b32 %r1, %t, 1; setp.eq.u32 %p2, %r1, 0; vote.sync.ballot.b32 %r2, %p2, 0xFFFF;\nJ: st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| if t < 16 { 0x5555 } else { 0 }));
}

#[test]
fn matches() {
    let body = "rem.u32 %r1, %t, 3; match.any.sync.b32 %r2, %r1, -1; st.global.u32 [%o], %r2;";
    let same = |t: u32| (0..32).filter(|i| i % 3 == t % 3).fold(0u32, |m, i| m | 1 << i);
    assert_eq!(lanes(body), each(same));
    let body = "rem.u32 %r1, %t, 3; mov.b64 %rd1, {0, %r1}; match.any.sync.b64 %r2, %rd1, -1; match.all.sync.b64 %r3|%p1, %rd1, -1; @%p1 trap; setp.ne.u32 %p2, %r3, 0; @%p2 trap;\n\
        mov.u32 %r4, 8; match.all.sync.b32 %r5|%p1, %r4, -1; @!%p1 trap; not.b32 %r5, %r5; add.u32 %r2, %r2, %r5; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(same));
}

#[test]
fn reductions() {
    let value = |t: u32| t.wrapping_mul(0x9E37_79B9);
    let reduce = |op: &str| {
        lanes(&format!(
            "mul.lo.u32 %r1, %t, 0x9E3779B9; redux.sync.{op} %r2, %r1, -1; st.global.u32 [%o], %r2;"
        ))
    };
    let all = || (0..32).map(value);
    let cases = [
        ("add.u32", all().fold(0, u32::wrapping_add)),
        ("add.s32", all().fold(0, u32::wrapping_add)),
        ("min.u32", all().min().unwrap_or(0)),
        ("max.u32", all().max().unwrap_or(0)),
        ("min.s32", all().map(|v| v as i32).min().unwrap_or(0) as u32),
        ("max.s32", all().map(|v| v as i32).max().unwrap_or(0) as u32),
        ("and.b32", all().fold(u32::MAX, |a, b| a & b)),
        ("or.b32", all().fold(0, |a, b| a | b)),
        ("xor.b32", all().fold(0, |a, b| a ^ b)),
    ];
    for (op, expected) in cases {
        assert_eq!(reduce(op), each(|_| expected), "{op}");
    }
    let body = "setp.lt.u32 %p1, %t, 4; @!%p1 bra J; add.u32 %r1, %t, 1; redux.sync.add.u32 %r2, %r1, 15;\nJ: st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| if t < 4 { 10 } else { 0 }));
}

#[test]
fn elect_chooses_one_lane_of_the_mask() {
    let body = "setp.ge.u32 %p1, %t, 9; @!%p1 bra J; elect.sync %r1|%p2, 0xFFFFFE00; selp.u32 %r2, 1, 0, %p2; elect.sync _|%p3, 0xFFFFFE00; @%p3 add.u32 %r2, %r2, 1;\n\
        mad.lo.u32 %r2, %r1, 100, %r2; J: st.global.u32 [%o], %r2;";
    let found = lanes(body);
    let leader = found[9] / 100;
    assert!(leader >= 9);
    assert_eq!(found, each(|t| if t < 9 { 0 } else { leader * 100 + if t == leader { 2 } else { 0 } }));
}

#[test]
fn lane_masks_and_other_special_registers() {
    let masks = [
        ("lanemask_eq", (|t| 1 << t) as fn(u32) -> u32),
        ("lanemask_lt", |t| (1 << t) - 1),
        ("lanemask_le", |t| u32::MAX >> (31 - t)),
        ("lanemask_gt", |t| !(u32::MAX >> (31 - t))),
        ("lanemask_ge", |t| !((1 << t) - 1)),
        ("laneid", |t| t),
        ("warpid", |_| 0),
        ("nwarpid", |_| 1),
        ("nsmid", |_| 132),
        ("smid", |_| 0),
        ("nctaid.z", |_| 1),
        ("ctaid.y", |_| 0),
    ];
    for (name, expected) in masks {
        assert_eq!(
            lanes(&format!("mov.u32 %r1, %{name}; st.global.u32 [%o], %r1;")),
            each(expected),
            "{name}"
        );
    }
    let body = "mov.u32 %r1, %dynamic_smem_size; mov.u32 %r2, %clock; mov.u64 %rd1, %clock64; mov.u32 %r3, WARP_SZ; mov.u64 %rd2, %globaltimer; mov.u64 %rd3, %gridid;\n\
        add.u32 %r1, %r1, %r3; st.global.u32 [%o], %r1;";
    let mut case = Case::new(body).zeros(128);
    case.dynamic_shared = 48;
    assert_eq!(case.output(0), each(|_| 80));
}

#[test]
fn clocks_grow() {
    let body = "mov.u64 %rd1, %clock64; mov.u32 %r1, %clock; add.u32 %r5, %r1, 1; mov.u64 %rd2, %clock64; mov.u32 %r2, %clock;\n\
        setp.gt.u64 %p1, %rd2, %rd1; setp.gt.u32 %p2, %r2, %r1; and.pred %p1, %p1, %p2; selp.u32 %r3, 1, 0, %p1; st.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|_| 1));
}
