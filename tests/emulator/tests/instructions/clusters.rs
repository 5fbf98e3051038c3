//! Blocks of a cluster: barriers and each other's shared memory.

use crate::support::Case;

const BARRIER: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";

fn four_blocks(body: &str) -> Vec<u32> {
    Case::new(body).grid(8).cluster(4).block(64).zeros(8 * 64 * 4).output_of_seeds(0, 10)
}

#[test]
fn loads_stores_and_atomics_reach_other_blocks() {
    let body = format!(
        ".shared .align 4 .b32 sm[64]; .shared .align 4 .b32 sum;\nmov.u32 %r1, %tid.x; mov.u32 %r2, sm; mad.lo.u32 %r3, %r1, 4, %r2;\n\
         st.shared.u32 [%r3], %t; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [sum], 0;\n{BARRIER}\n\
         mov.u32 %r4, %cluster_ctarank; add.u32 %r5, %r4, 1; and.b32 %r5, %r5, 3;\nmapa.shared::cluster.u32 %r6, %r3, %r5;\n\
         ld.shared::cluster.u32 %r7, [%r6];\nmov.u32 %r8, sum; mapa.shared::cluster.u32 %r9, %r8, %r5;\n\
         atom.shared::cluster.add.u32 %r10, [%r9], 1;\ngetctarank.shared::cluster.u32 %r11, %r6; setp.ne.u32 %p2, %r11, %r5; @%p2 trap;\n\
         cvt.u64.u32 %rd1, %r3; cvta.shared.u64 %rd1, %rd1; mapa.u64 %rd2, %rd1, %r5; ld.u32 %r12, [%rd2]; setp.ne.u32 %p2, %r12, %r7; @%p2 trap;\n\
         getctarank.u64 %r11, %rd2; setp.ne.u32 %p2, %r11, %r5; @%p2 trap; getctarank.u64 %r11, %rd1; setp.ne.u32 %p2, %r11, %r4; @%p2 trap;\n\
         {BARRIER}\nmapa.shared::cluster.u32 %r6, %r3, %r5; add.u32 %r13, %r7, 1000; st.shared::cluster.u32 [%r6], %r13;\n{BARRIER}\n\
         ld.shared.u32 %r7, [%r3]; ld.shared.u32 %r8, [sum]; mad.lo.u32 %r7, %r8, 10000, %r7; st.global.u32 [%o], %r7;"
    );
    assert_eq!(four_blocks(&body), (0..512).map(|t| 640_000 + 1000 + t).collect::<Vec<_>>());
}

#[test]
fn special_registers_of_a_cluster() {
    let body = "mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank; mov.u32 %r3, %clusterid.x; mov.u32 %r4, %nclusterid.x;\n\
        mov.u32 %r5, %cluster_ctaid.x; mov.u32 %r6, %cluster_nctaid.x; mov.u32 %r7, %cluster_nctaid.y; mov.pred %p1, %is_explicit_cluster;\n\
        mad.lo.u32 %r1, %r1, 10, %r2; mad.lo.u32 %r1, %r1, 10, %r3; mad.lo.u32 %r1, %r1, 10, %r4; mad.lo.u32 %r1, %r1, 10, %r5;\n\
        mad.lo.u32 %r1, %r1, 10, %r6; mad.lo.u32 %r1, %r1, 10, %r7; selp.u32 %r8, 1, 0, %p1; mad.lo.u32 %r1, %r1, 10, %r8; st.global.u32 [%o], %r1;";
    let expected: Vec<u32> = (0..512u32)
        .map(|t| {
            let (rank, cluster) = (t / 64 % 4, t / 256);
            [rank, 4, cluster, 2, rank, 4, 1, 1].iter().fold(0, |n, digit| 10 * n + digit)
        })
        .collect();
    assert_eq!(four_blocks(body), expected);
}

/// Every block arrives at the mbarrier of block 0, which then reads what they stored there.
#[test]
fn remote_arrivals_order_remote_stores() {
    let body = format!(
        ".shared .align 8 .b64 bar; .shared .align 4 .b32 sm[4];\nmov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 0; mov.u32 %r2, %cluster_ctarank;\n\
         setp.ne.u32 %p2, %r2, 0; or.pred %p3, %p1, %p2; @!%p3 mbarrier.init.shared.b64 [bar], 4; @!%p3 fence.mbarrier_init.release.cluster;\n{BARRIER}\n\
         @%p1 bra WAIT; mov.u32 %r3, bar; mapa.shared::cluster.u32 %r4, %r3, 0; mov.u32 %r5, sm; mad.lo.u32 %r5, %r2, 4, %r5;\n\
         mapa.shared::cluster.u32 %r6, %r5, 0; add.u32 %r7, %r2, 5; st.shared::cluster.u32 [%r6], %r7;\n\
         mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r4];\nWAIT: @%p2 bra DONE;\n\
         SPIN: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p4, [bar], 0; @!%p4 bra SPIN;\n\
         ld.shared.v4.u32 {{%r8, %r9, %r10, %r11}}, [sm]; add.u32 %r8, %r8, %r9; add.u32 %r8, %r8, %r10; add.u32 %r8, %r8, %r11; st.global.u32 [%o], %r8;\n\
         DONE: {BARRIER}"
    ).replace("sm[4]", "sm[4]").replace(".align 4 .b32 sm[4]", ".align 16 .b32 sm[4]");
    let found = four_blocks(&body);
    let expected: Vec<u32> = (0..512).map(|t| if t / 64 % 4 == 0 { 26 } else { 0 }).collect();
    assert_eq!(found, expected);
}

#[test]
fn split_arrival_and_wait_and_unaligned_barriers() {
    let body = ".shared .align 4 .b32 sm;\nmov.u32 %r1, %tid.x; setp.ne.u32 %p1, %r1, 0; mov.u32 %r2, %cluster_ctarank;\n\
        @!%p1 st.shared.u32 [sm], %r2; barrier.cluster.arrive.release; add.u32 %r3, %r2, 3; and.b32 %r3, %r3, 3; mov.u32 %r4, sm;\n\
        barrier.cluster.wait.acquire; mapa.shared::cluster.u32 %r5, %r4, %r3; ld.shared::cluster.u32 %r6, [%r5]; st.global.u32 [%o], %r6;\n\
        barrier.cluster.arrive; barrier.cluster.wait;";
    assert_eq!(four_blocks(body), (0..512).map(|t| (t / 64 + 3) % 4).collect::<Vec<u32>>());
}

/// A warp that arrives and exits counts once; the others still wait for each other.
#[test]
fn an_arrival_of_a_warp_that_exits_counts_once() {
    let body = ".shared .align 4 .b32 sm;\nmov.u32 %r2, %cluster_ctarank; setp.ne.u32 %p1, %l, 0; setp.eq.u32 %p2, %r2, 0; @!%p2 bra STAY;\n\
        barrier.cluster.arrive.aligned; exit;\n\
        STAY: @!%p1 st.shared.u32 [sm], %r2; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n\
        xor.b32 %r3, %r2, 1; setp.eq.u32 %p3, %r2, 1; selp.u32 %r3, 2, %r3, %p3; setp.eq.u32 %p3, %r2, 3; selp.u32 %r3, 2, %r3, %p3; \n\
        setp.eq.u32 %p3, %r2, 2; selp.u32 %r3, 3, %r3, %p3; mov.u32 %r4, sm; mapa.shared::cluster.u32 %r5, %r4, %r3; ld.shared::cluster.u32 %r6, [%r5]; st.global.u32 [%o], %r6;\n\
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    let case = Case::new(body).grid(4).cluster(4).zeros(4 * 32 * 4);
    let expected: Vec<u32> = [0, 2, 3, 2].into_iter().flat_map(|v| [v; 32]).collect();
    assert_eq!(case.output_of_seeds(0, 20), expected);
}
