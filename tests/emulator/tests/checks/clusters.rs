//! Blocks of a cluster that do not wait for each other.

use cuda_emulator::report::FaultKind::{self, InFlight, OutOfBounds, Race};

use crate::support::Case;

const HEAD: &str = ".shared .align 4 .b32 sm[32];\nmov.u32 %r1, sm; mad.lo.u32 %r2, %l, 4, %r1; mov.u32 %r3, %cluster_ctarank; xor.b32 %r4, %r3, 1; mapa.shared::cluster.u32 %r5, %r2, %r4;\n";
const BARRIER: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";

#[test]
fn accesses_without_a_barrier_of_the_cluster() {
    // Both write the words of block 0.
    let body = format!(
        "{HEAD}mapa.shared::cluster.u32 %r5, %r2, 0; setp.eq.u32 %p1, %r3, 0;\n@%p1 st.shared::cluster.u32 [%r5], 1; // here\nFIX\n@!%p1 st.shared::cluster.u32 [%r5], 2; // here\n{BARRIER}"
    );
    Case::new(&body.replace("FIX", "")).grid(2).cluster(2).faults(Race);
    Case::new(&body.replace("FIX", BARRIER)).grid(2).cluster(2).passes();
    // A block barrier is not enough between blocks.
    Case::new(&body.replace("FIX", "bar.sync 0;")).grid(2).cluster(2).faults(Race);
    let body = format!(
        "{HEAD}st.shared.u32 [%r2], 7; {BARRIER}\nld.shared::cluster.u32 %r6, [%r5]; // here\nFIX\nst.shared.u32 [%r2], 8; // here\n{BARRIER}"
    );
    Case::new(&body.replace("FIX", "")).grid(2).cluster(2).faults(Race);
    Case::new(&body.replace("FIX", BARRIER)).grid(2).cluster(2).passes();
}

/// "Distributed Shared Memory" of the CUDA programming guide: a block must not exit while others access its
/// memory.
#[test]
fn memory_of_a_block_that_has_exited() {
    let body = format!(
        "{HEAD}st.shared.u32 [%r2], 7; {BARRIER} setp.eq.u32 %p1, %r3, 0; @%p1 bra EXIT; mov.u32 %r7, 0;\nL: ld.shared::cluster.u32 %r6, [%r5]; // here\nadd.u32 %r7, %r7, 1; setp.lt.u32 %p2, %r7, 40000; @%p2 bra L;\nEXIT: FIX"
    );
    Case::new(&body.replace("FIX", "")).grid(2).cluster(2).faults(OutOfBounds).block(1);
    Case::new(&body.replace("FIX", BARRIER)).grid(2).cluster(2).passes();
}

#[test]
fn ranks_outside_the_cluster() {
    let body = format!("{HEAD}mapa.shared::cluster.u32 %r5, %r2, RANK; // here");
    Case::new(&body.replace("RANK", "2")).grid(2).cluster(2).faults(OutOfBounds).thread(0);
    Case::new(&body.replace("RANK", "1")).grid(2).cluster(2).passes();
    let body = format!(
        "{HEAD}st.shared.u32 [%r2], 7; {BARRIER} add.u32 %r5, %r5, OFFSET;\nld.shared::cluster.u32 %r6, [%r5]; // here\n{BARRIER}"
    );
    Case::new(&body.replace("OFFSET", "0x4000000")).grid(2).cluster(2).faults(OutOfBounds).thread(0);
    Case::new(&body.replace("OFFSET", "128")).grid(2).cluster(2).faults(OutOfBounds).thread(0);
    Case::new(&body.replace("OFFSET", "0")).grid(2).cluster(2).passes();
}

#[test]
fn a_relaxed_arrival_orders_nothing() {
    let body = format!(
        "{HEAD}st.shared.u32 [%r2], 7; barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\nld.shared::cluster.u32 %r6, [%r5]; // here\n{BARRIER}"
    );
    Case::new(&body).grid(2).cluster(2).faults(Race);
    Case::new(&body.replace("relaxed", "release")).grid(2).cluster(2).passes();
}

/// Block 0 sends 512 bytes to both blocks, in rounds through one stage; both read them. `empty` is what block
/// 0 waits for before the next round, `read` what the blocks say when they have read.
fn rounds(empty: &str, read: &str) -> Case {
    let body = format!(
        ".shared .align 128 .b8 sm[512]; .shared .align 8 .b64 full; .shared .align 8 .b64 empty;\n\
         mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p1, %l, 0; setp.eq.u32 %p2, %r1, 0; and.pred %p3, %p1, %p2; mov.u16 %h1, 3; mov.u32 %r2, 0;\n\
         mov.u32 %r3, empty; mapa.shared::cluster.u32 %r3, %r3, 0; mov.u32 %r5, sm; mad.lo.u32 %r5, %l, 16, %r5;\n\
         @%p1 mbarrier.init.shared.b64 [full], 1; @%p1 mbarrier.init.shared.b64 [empty], 2; @%p1 fence.mbarrier_init.release.cluster;\n{BARRIER}\n\
         ROUND: and.b32 %r4, %r2, 1; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [full], 512;\n\
         setp.ne.u32 %p4, %r2, 0; and.pred %p4, %p4, %p3; xor.b32 %r6, %r4, 1;\n@!%p4 bra FREE; {empty}\n\
         FREE: @%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [sm], [%a0], 512, [full], %h1;\n\
         bar.warp.sync -1; WAIT: mbarrier.try_wait.parity.shared.b64 %p5, [full], %r4; @!%p5 bra WAIT;\n\
         ld.shared.u32 %r7, [%r5]; bar.warp.sync -1; {read}\n\
         add.u32 %r2, %r2, 1; setp.lt.u32 %p6, %r2, 4; @%p6 bra ROUND;\n{BARRIER}"
    );
    Case::new(&body).grid(2).cluster(2).words(&[7; 128])
}

const BOTH_READ: &str = "@%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3];";
const EMPTY: &str = "SPIN: mbarrier.try_wait.parity.shared.b64 %p7, [empty], %r6; @!%p7 bra SPIN;";

/// That a block has got its part of a multicast says nothing about the others.
#[test]
fn a_stage_of_another_block_is_overwritten() {
    rounds(EMPTY, BOTH_READ).passes();
    let either = |case: Case, kinds: &[FaultKind]| {
        for seed in 0..20 {
            let fault = case.clone().seed(seed).run().err().expect("a fault").fault;
            assert!(kinds.contains(&fault.kind), "{fault}");
        }
    };
    // Block 0 waits for itself alone: the other reads, or has not even got the bytes of the round before.
    either(rounds("", ""), &[InFlight, Race]);
    let own_twice = "@%p3 mbarrier.arrive.shared.b64 _, [empty]; @%p3 mbarrier.arrive.shared.b64 _, [empty];";
    either(rounds(EMPTY, own_twice), &[InFlight, Race]);
}

/// Block 0 has got its part of a multicast and waited for it; then come `rest`, in block 0 alone, or, with a
/// barrier of the cluster behind both waits, in order.
fn got_own_part(ordered: bool, rest: &str) -> Case {
    let barrier = if ordered { BARRIER } else { "" };
    let body = format!(
        ".shared .align 128 .b8 sm[512]; .shared .align 8 .b64 full;\n\
         mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p1, %l, 0; setp.eq.u32 %p2, %r1, 0; and.pred %p3, %p1, %p2; mov.u16 %h1, 3;\n\
         mov.u32 %r2, sm; mapa.shared::cluster.u32 %r3, %r2, 1;\n\
         @%p1 mbarrier.init.shared.b64 [full], 1; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [full], 512; @%p1 fence.mbarrier_init.release.cluster;\n{BARRIER}\n\
         @%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [sm], [%a0], 512, [full], %h1;\n\
         bar.warp.sync -1; WAIT: mbarrier.try_wait.parity.shared.b64 %p5, [full], 0; @!%p5 bra WAIT;\n{barrier}\n\
         @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [full], 512;\n{rest}\n\
         AGAIN: mbarrier.try_wait.parity.shared.b64 %p5, [full], 1; @!%p5 bra AGAIN;\n{BARRIER}"
    );
    Case::new(&body).grid(2).cluster(2).words(&[7; 128])
}

/// That a block has got its part says nothing about what others got, even where nobody has read it.
#[test]
fn parts_of_a_multicast_arrive_at_different_times() {
    let again = "@%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [sm], [%a0], 512, [full], %h1;";
    let read = format!("@%p3 ld.shared::cluster.u32 %r4, [%r3];\n{BARRIER}\n{again}");
    for rest in [again, &read] {
        got_own_part(true, rest).passes();
        let mut kinds = Vec::new();
        for seed in 0..20 {
            let fault = got_own_part(false, rest).seed(seed).run().err().expect("a fault").fault;
            kinds.push(fault.kind);
        }
        // The other's part had arrived, unknown to block 0, or had not.
        assert!(kinds.iter().all(|kind| [InFlight, Race].contains(kind)), "{kinds:?}");
        assert!(kinds.contains(&InFlight) && kinds.contains(&Race), "{kinds:?}");
    }
}
