//! Blocks of a cluster that do not wait for each other.

use cuda_emulator::report::FaultKind::{OutOfBounds, Race};

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
