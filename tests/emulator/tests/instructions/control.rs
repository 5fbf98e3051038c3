//! Branches, divergence and reconvergence.

use crate::support::{Case, each, lanes};

#[test]
fn loops_with_a_trip_count_per_lane_reconverge() {
    let body = "mov.u32 %r1, 0; mov.u32 %r2, 0;\nL: add.u32 %r2, %r2, %r1; add.u32 %r1, %r1, 1; setp.le.u32 %p1, %r1, %t; @%p1 bra L;\n\
        activemask.b32 %r3; popc.b32 %r3, %r3; mad.lo.u32 %r2, %r2, 100, %r3; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| t * (t + 1) / 2 * 100 + 32));
}

#[test]
fn nested_conditions() {
    let body = "and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0; and.b32 %r2, %t, 2; setp.eq.u32 %p2, %r2, 0;\n\
        @%p1 bra E; @%p2 bra OE; mov.u32 %r3, 3; bra J; OE: mov.u32 %r3, 1; bra.uni J;\n\
        E: @%p2 bra EE; mov.u32 %r3, 2; bra J; EE: mov.u32 %r3, 0;\n\
        J: activemask.b32 %r4; not.b32 %r4, %r4; mad.lo.u32 %r3, %r4, 10, %r3; st.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|t| t & 3));
}

/// Whatever the warp's memory held before: of registers, only those start as zeros that may be read before
/// they are written.
#[test]
fn registers_that_a_path_does_not_write_are_zero() {
    let body = "and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra J; mov.u32 %r2, 7; J: mov.u32 %r3, 0;\n\
        L: add.u32 %r4, %r4, %r2; add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, 3; @%p2 bra L;\n\
        @!%p1 mov.u32 %r5, 100; add.u32 %r4, %r4, %r5; st.global.u32 [%o], %r4; mov.u32 %r2, 9; mov.u32 %r5, 9;";
    for _ in 0..3 {
        assert_eq!(lanes(body), each(|t| if t & 1 == 0 { 0 } else { 121 }));
    }
}

#[test]
fn indexed_branches_and_guarded_ones() {
    let body = "and.b32 %r1, %t, 3; TS: .branchtargets A, B, C, A; setp.lt.u32 %p1, %t, 16; mov.u32 %r2, 9;\n\
        @%p1 brx.idx %r1, TS; bra J; A: mov.u32 %r2, 0; bra J; B: mov.u32 %r2, 1; bra J; C: mov.u32 %r2, 2;\n\
        J: bar.warp.sync 0xFFFFFFFF; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| if t < 16 { [0, 1, 2, 0][(t & 3) as usize] } else { 9 }));
}

#[test]
fn early_exits_leave_the_rest_running() {
    let body = "setp.lt.u32 %p1, %t, 5; @%p1 exit; setp.gt.u32 %p2, %t, 20; @%p2 bra OUT; bar.warp.sync -1;\n\
        activemask.b32 %r1; popc.b32 %r1, %r1; st.global.u32 [%o], %r1; ret; OUT: st.global.u32 [%o], 7; exit;";
    // The lanes that exit at OUT may do so before or after; those that stay wait for them.
    let found = lanes(body);
    assert_eq!(found[..5], [0; 5]);
    assert!(found[5..21].iter().all(|&n| n == 16), "{found:?}");
    assert_eq!(found[21..], [7; 11]);
}

/// The lane that holds the lock is behind the loop that the others spin in: all have to get on (Volta's
/// independent thread scheduling).
#[test]
fn lanes_of_one_warp_spin_for_each_other() {
    let loops = [
        "SPIN: atom.global.acquire.gpu.cas.b32 %r1, [%a1], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra SPIN;\n\
         ld.global.u32 %r2, [%a1+4]; add.u32 %r2, %r2, 1; st.global.u32 [%a1+4], %r2; atom.global.release.gpu.exch.b32 %r3, [%a1], 0;",
        "SPIN: ld.volatile.global.u32 %r1, [%a1]; setp.ne.u32 %p1, %r1, %l; @%p1 bra SPIN;\n\
         ld.global.u32 %r2, [%a1+4]; add.u32 %r2, %r2, 1; st.global.u32 [%a1+4], %r2; add.u32 %r4, %l, 1; st.volatile.global.u32 [%a1], %r4;",
    ];
    for text in loops {
        let body = format!("{text}\nst.global.u32 [%o], %r2;");
        let mut found = Case::new(&body).zeros(128).zeros(8).output(0);
        found.sort_unstable();
        assert_eq!(found, (1..=32).collect::<Vec<_>>());
    }
}

#[test]
fn locks_of_shared_memory_between_lanes_and_warps() {
    let body = ".shared .align 4 .b32 lock; .shared .align 4 .b32 count;\nsetp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [lock], 0; @%p1 st.shared.u32 [count], 0; bar.sync 0;\n\
        SPIN: atom.shared.acquire.cta.cas.b32 %r1, [lock], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra SPIN;\n\
        ld.shared.u32 %r2, [count]; add.u32 %r2, %r2, 1; st.shared.u32 [count], %r2; membar.cta; atom.shared.release.cta.exch.b32 %r3, [lock], 0;\n\
        bar.warp.sync -1; bar.sync 0; ld.shared.u32 %r4, [count]; st.global.u32 [%o], %r4;";
    assert_eq!(Case::new(body).block(128).zeros(512).output_of_seeds(0, 5), vec![128; 128]);
}

/// Half of a warp waits at an mbarrier that the other half, at a later place, arrives at.
#[test]
fn a_wait_of_some_lanes_does_not_stop_the_others() {
    let body = ".shared .align 8 .b64 bar;\nsetp.eq.u32 %p1, %t, 0; @%p1 mbarrier.init.shared.b64 [bar], 16; bar.warp.sync -1;\n\
        setp.ge.u32 %p2, %t, 16; @%p2 bra ARRIVE;\nW: mbarrier.try_wait.parity.shared.b64 %p3, [bar], 0; @!%p3 bra W; bra J;\n\
        ARRIVE: mbarrier.arrive.shared.b64 _, [bar];\nJ: bar.warp.sync -1; st.global.u32 [%o], 1;";
    assert_eq!(Case::new(body).zeros(128).output_of_seeds(0, 5), vec![1; 32]);
}

#[test]
fn labels_and_registers_are_local_to_their_braces() {
    let body = "mov.u32 %r1, 1; { .reg .b32 %r1, x; mov.u32 %r1, 50; mov.u32 x, 5; bra L; mov.u32 %r1, 0; L: add.u32 x, x, %r1; add.u32 %r2, x, 0; }\n\
        { .reg .b64 x; mov.u64 x, 100; L: cvt.u32.u64 %r3, x; setp.eq.u32 %p1, %r3, 0; @%p1 bra L; }\n\
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; st.global.u32 [%o], %r1;";
    assert_eq!(lanes(body), each(|_| 156));
}

#[test]
fn a_guard_with_no_lane_left_does_nothing() {
    let body = "setp.gt.u32 %p1, %t, 99; mov.u32 %r1, 3;\n@%p1 trap; @%p1 bra FAR; @%p1 exit; @%p1 bar.sync 0; @%p1 shfl.sync.idx.b32 %r1, %r1, 0, 31, -1;\n\
        @%p1 mov.b64 {%r1, %r2}, %a0; @%p1 mov.u32 %r1, 8; st.global.u32 [%o], %r1; FAR:";
    assert_eq!(lanes(body), each(|_| 3));
}

/// 33 × 3 × 2 threads: lanes go through x first, and the last warp has a part of its lanes.
#[test]
fn blocks_of_three_dimensions() {
    let body = "mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ntid.x; mov.u32 %r5, %ntid.y;\n\
        mad.lo.u32 %r6, %r3, %r5, %r2; mad.lo.u32 %r6, %r6, %r4, %r1; and.b32 %r7, %r6, 31; setp.ne.u32 %p1, %r7, %l; @%p1 trap;\n\
        shr.u32 %r7, %r6, 5; mov.u32 %r8, %warpid; setp.ne.u32 %p1, %r7, %r8; @%p1 trap; mad.wide.u32 %rd1, %r6, 4, %a0;\n\
        mov.u32 %r9, %nctaid.y; mad.lo.u32 %r9, %r9, 10, %u0; st.global.u32 [%rd1], %r9;";
    let mut case = Case::new(body).zeros(198 * 4);
    case.block = [33, 3, 2];
    assert_eq!(case.output(0), vec![10; 198]);
}

/// One lane spins for another warp while the rest of its warp waits for it at a barrier of the block.
#[test]
fn lanes_wait_at_a_barrier_for_one_of_them_that_spins() {
    let spins = [
        "SPIN: ld.volatile.global.u32 %r1, [%a1]; setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN;",
        "SPIN: atom.global.acquire.gpu.or.b32 %r1, [%a1], 0; setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN;",
        "SPIN: nanosleep.u32 100; ld.relaxed.gpu.global.u32 %r1, [%a1]; setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN;",
        "SPIN: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra SPIN;",
        "SPIN: mbarrier.test_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra SPIN;",
    ];
    for spin in spins {
        let body = format!(
            ".shared .align 8 .b64 bar;\nsetp.eq.u32 %p5, %t, 0; @%p5 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; setp.eq.u32 %p1, %t, 0; @!%p1 bra REST;\n{spin}\n\
             REST: setp.eq.u32 %p3, %t, 40; @%p3 mbarrier.arrive.shared.b64 _, [bar]; @%p3 st.volatile.global.u32 [%a1], 1;\nbar.sync 0; vote.sync.ballot.b32 %r2, %p1, -1; st.global.u32 [%o], 1;"
        );
        assert_eq!(
            Case::new(&body).block(64).zeros(256).zeros(4).output_of_seeds(0, 6),
            vec![1; 64],
            "{spin}"
        );
    }
}

/// Two parts of a warp spin for different things before they meet at a barrier of the block.
#[test]
fn two_parts_of_a_warp_spin_before_a_barrier() {
    for first in [0, 1] {
        let body = format!(
            "setp.eq.u32 %p1, %t, 0; and.b32 %r9, %t, 1; setp.eq.u32 %p4, %r9, {first}; setp.ge.u32 %p3, %t, 32; @%p3 bra OTHER; @%p4 bra LATE;\n\
             A: ld.volatile.global.u32 %r1, [%a1]; setp.eq.u32 %p2, %r1, 0; @%p2 bra A; bra JOIN;\n\
             OTHER: mov.u32 %r5, 0; D: add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 9000; @%p2 bra D; st.volatile.global.u32 [%a1+{first}], 1;\n\
             mov.u32 %r5, 0; E: add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 20000; @%p2 bra E; st.volatile.global.u32 [%a1], 1; st.volatile.global.u32 [%a1+4], 1; bra JOIN;\n\
             LATE: ld.volatile.global.u32 %r1, [%a1+4]; setp.eq.u32 %p2, %r1, 0; @%p2 bra LATE;\nJOIN: bar.sync 0; st.global.u32 [%o], 1;"
        )
        .replace("[%a1+1]", "[%a1+4]");
        assert_eq!(Case::new(&body).block(64).zeros(256).zeros(8).output_of_seeds(0, 6), vec![1; 64]);
    }
}
