//! Barriers of a block.

use crate::support::Case;

#[test]
fn a_barrier_orders_the_whole_block() {
    let body = ".shared .align 4 .b32 sm[256];\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 4, %r1; st.shared.u32 [%r2], %t;\n\
        bar.sync 0;\nsub.u32 %r3, 255, %t; mad.lo.u32 %r2, %r3, 4, %r1; ld.shared.u32 %r4, [%r2]; st.global.u32 [%o], %r4;";
    let found = Case::new(body).block(256).zeros(1024).output_of_seeds(0, 20);
    assert_eq!(found, (0..256).map(|t| 255 - t).collect::<Vec<_>>());
}

#[test]
fn barriers_without_aligned_wait_for_the_lanes_of_a_warp() {
    let body = ".shared .align 4 .b32 sm[64];\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 4, %r1;\n\
        and.b32 %r5, %t, 1; setp.eq.u32 %p1, %r5, 0; @%p1 bra EVEN;\nst.shared.u32 [%r2], 1; bra JOIN;\n\
        EVEN: st.shared.u32 [%r2], 2;\nJOIN: barrier.sync 0;\nxor.b32 %r3, %t, 33; mad.lo.u32 %r2, %r3, 4, %r1;\n\
        ld.shared.u32 %r4, [%r2]; st.global.u32 [%o], %r4;";
    let found = Case::new(body).block(64).zeros(256).output_of_seeds(0, 10);
    assert_eq!(found, (0..64).map(|t| 1 + t % 2).collect::<Vec<_>>());
}

/// Warps 0 and 1 produce, 2 and 3 consume; each side arrives for the other.
#[test]
fn arrive_and_sync_with_counts_hand_buffers_over() {
    let body = ".shared .align 4 .b32 sm[64];\nmov.u32 %r1, sm; and.b32 %r2, %t, 63; mad.lo.u32 %r1, %r2, 4, %r1;\n\
        mov.u32 %r3, 0; mov.u32 %r7, 0; setp.ge.u32 %p1, %t, 64; @%p1 bra CONSUME;\n\
        PRODUCE: bar.sync 1, 128; add.u32 %r4, %r3, %t; st.shared.u32 [%r1], %r4; bar.arrive 2, 128;\n\
        add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, 8; @%p2 bra PRODUCE; ret;\n\
        CONSUME: bar.arrive 1, 128; bar.sync 2, 128; ld.shared.u32 %r4, [%r1]; add.u32 %r7, %r7, %r4;\n\
        add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, 8; @%p2 bra CONSUME;\nst.global.u32 [%o], %r7;";
    let found = Case::new(body).block(128).zeros(512).output_of_seeds(0, 20);
    assert_eq!(found[64..], (0..64).map(|t| 28 + 8 * t).collect::<Vec<u32>>());
}

#[test]
fn reductions_of_a_block() {
    let body = "setp.lt.u32 %p1, %t, 40; bar.red.popc.u32 %r1, 0, %p1; bar.red.and.pred %p2, 0, %p1;\n\
        bar.red.or.pred %p3, 0, %p1; bar.red.and.pred %p4, 0, !%p5; barrier.cta.red.popc.aligned.u32 %r2, 1, !%p1;\n\
        selp.u32 %r3, 1, 0, %p2; selp.u32 %r4, 2, 0, %p3; selp.u32 %r5, 4, 0, %p4; or.b32 %r3, %r3, %r4; or.b32 %r3, %r3, %r5;\n\
        mad.lo.u32 %r1, %r1, 1000, %r2; mad.lo.u32 %r1, %r1, 10, %r3; st.global.u32 [%o], %r1;";
    assert_eq!(Case::new(body).block(96).zeros(384).output_of_seeds(0, 5), vec![400_566; 96]);
    // 80 threads: the lanes that the last warp lacks do not count.
    assert_eq!(Case::new(body).block(80).zeros(320).output_of_seeds(0, 5), vec![400_406; 80]);
}

#[test]
fn a_reduction_with_a_count_is_that_of_the_threads_that_take_part() {
    let body = "setp.ge.u32 %p1, %t, 64; @%p1 bra OTHERS; setp.lt.u32 %p2, %t, 64; bar.red.and.pred %p3, 3, 64, %p2;\n\
        selp.u32 %r1, 1, 2, %p3; st.global.u32 [%o], %r1; ret;\n\
        OTHERS: bar.red.popc.u32 %r1, 4, 64, %p1; st.global.u32 [%o], %r1;";
    let expected: Vec<u32> = (0..128).map(|t| if t < 64 { 1 } else { 64 }).collect();
    assert_eq!(Case::new(body).block(128).zeros(512).output_of_seeds(0, 5), expected);
}

/// Without a count a barrier waits for all threads of the block, so giving their number means the same
/// ("Parallel Synchronization and Communication Instructions: barrier").
#[test]
fn no_count_means_the_number_of_all_threads() {
    let body = "setp.lt.u32 %p1, %t, 32; @%p1 bra A; bar.sync 1, 64; bra B;\nA: bar.sync 1;\nB: st.global.u32 [%o], 1;";
    assert_eq!(Case::new(body).block(64).zeros(256).output_of_seeds(0, 5), vec![1; 64]);
}

#[test]
fn warps_that_have_exited_are_not_waited_for() {
    let body = "setp.ge.u32 %p1, %t, 64; @%p1 exit; bar.sync 0; bar.sync 0; st.global.u32 [%o], 1;";
    let found = Case::new(body).block(128).zeros(512).output_of_seeds(0, 10);
    assert_eq!(found.iter().sum::<u32>(), 64);
}

#[test]
fn sixteen_barriers_by_a_register() {
    let body = "mov.u32 %r1, 0;\nL: bar.sync %r1; add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 16; @%p1 bra L;\n\
        st.global.u32 [%o], %r1;";
    assert_eq!(Case::new(body).block(64).zeros(256).output_of_seeds(0, 3), vec![16; 64]);
}

/// Every block adds to a counter and spins until all have: more blocks than machine threads.
#[test]
fn a_cooperative_grid_meets_at_a_barrier_in_global_memory() {
    let body = "mov.u32 %r5, 0; mov.u32 %r6, 0; mov.u32 %r8, %nctaid.x;\nROUND: bar.sync 0;\nsetp.ne.u32 %p1, %u0, 9999;\n\
        mov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 0; @%p1 bra WAIT;\n\
        membar.gl; red.global.add.u32 [%a1], 1; add.u32 %r6, %r6, %r8;\n\
        SPIN: ld.volatile.global.u32 %r2, [%a1]; setp.lt.u32 %p2, %r2, %r6; @%p2 bra SPIN;\nmembar.gl;\n\
        WAIT: bar.sync 0; add.u32 %r5, %r5, 1; setp.lt.u32 %p3, %r5, 3; @%p3 bra ROUND;\n\
        ld.volatile.global.u32 %r3, [%a1]; setp.lt.u32 %p1, %r3, %r8; selp.u32 %r3, 0, %r5, %p1; st.global.u32 [%o], %r3;";
    for threads in [1, 2, 3] {
        let mut case = Case::new(body).grid(200).block(64).zeros(200 * 64 * 4).zeros(4);
        case.cooperative = true;
        case.threads = threads;
        assert_eq!(case.output(0), vec![3; 200 * 64]);
    }
}

/// The barrier of `cooperative_groups::grid_group`, as nvcc writes it: a counter in the workspace whose
/// address is in two environment registers.
#[test]
fn the_barrier_of_a_grid_finds_its_workspace() {
    let body = "mov.u32 %r1, %envreg2; cvt.u64.u32 %rd1, %r1; mov.u32 %r2, %envreg1; cvt.u64.u32 %rd2, %r2; bfi.b64 %rd3, %rd2, %rd1, 32, 32;\n\
        setp.ne.s64 %p1, %rd3, 0; @%p1 bra OK; st.global.u32 [%o], 9; ret;\nOK: red.global.add.u32 [%a1], 1; barrier.sync 0; mov.u32 %r3, %tid.x; setp.ne.u32 %p2, %r3, 0; @%p2 bra JOIN;\n\
        mov.u32 %r4, %nctaid.x; sub.u32 %r5, 0x80000001, %r4; setp.eq.u32 %p3, %u0, 0; selp.b32 %r6, %r5, 1, %p3; atom.add.release.gpu.u32 %r7, [%rd3+4], %r6;\n\
        SPIN: ld.acquire.gpu.u32 %r8, [%rd3+4]; xor.b32 %r9, %r8, %r7; setp.gt.s32 %p4, %r9, -1; @%p4 bra SPIN;\n\
        JOIN: barrier.sync 0; ld.relaxed.gpu.global.u32 %r10, [%a1]; st.global.u32 [%o], %r10;";
    let mut case = Case::new(body).grid(20).block(64).zeros(20 * 64 * 4).zeros(4);
    assert_eq!(case.output(0), vec![9; 1280]);
    case.cooperative = true;
    assert_eq!(case.output_of_seeds(0, 5), vec![1280; 1280]);
}
