//! Barriers and mbarriers used in ways they do not allow.

use cuda_emulator::report::FaultKind::{Barrier, Uninitialised};

use crate::support::Case;

/// A block of 64 threads with a wrong and a right version of one line.
fn misuse(wrong: &str, right: &str, around: &str) {
    let line = |line: &str| around.replace("LINE", &format!("\n{line} // here\n"));
    Case::new(&line(wrong)).block(64).faults(Barrier);
    Case::new(&line(right)).block(64).passes();
}

#[test]
fn numbers_and_counts() {
    misuse("bar.sync 16;", "bar.sync 15;", "LINE");
    misuse("bar.sync %r1;", "bar.sync 0;", "mov.u32 %r1, 99; LINE");
    misuse("bar.sync 1, 33;", "bar.sync 1, 64;", "LINE");
    misuse("bar.sync 1, 96;", "bar.sync 1, 64;", "LINE");
    misuse("bar.sync 1, 0;", "bar.sync 1, 64;", "LINE");
    misuse("bar.arrive 1, 31;", "bar.arrive 1, 64;", "LINE");
}

#[test]
fn mixed_counts() {
    let body = "setp.ge.u32 %p1, %t, 64; @%p1 exit; setp.lt.u32 %p1, %t, 32; @%p1 bra A;\nbar.sync 1, 64; // here\nbra B;\nA:\nbar.sync 1, 96; // here\nB:";
    Case::new(body).block(96).faults(Barrier);
    Case::new(&body.replace("96", "64")).block(96).passes();
}

#[test]
fn arrivals_of_one_warp_count_each_time() {
    let body = "setp.lt.u32 %p1, %t, 64; @%p1 bra A;\nbar.arrive 1, 64; // here\nbar.arrive 1, 64; bra B;\nA: bar.sync 1, 64;\nB:";
    Case::new(body).block(96).passes();
}

fn mbarrier(wrong: &str, right: &str) {
    let body = |line: &str| {
        format!(
            ".shared .align 8 .b64 bar; .shared .align 8 .b64 other;\nsetp.ne.u32 %p1, %t, 0; @%p1 ret; mbarrier.init.shared.b64 [bar], 2; st.shared.b64 [other], 0;\n{line} // here"
        )
    };
    Case::new(&body(wrong)).block(64).faults(Barrier).thread(0);
    Case::new(&body(right)).block(64).passes();
}

#[test]
fn mbarriers() {
    mbarrier("mbarrier.arrive.shared.b64 _, [other];", "mbarrier.arrive.shared.b64 _, [bar];");
    mbarrier(
        "mbarrier.test_wait.parity.shared.b64 %p2, [other], 0;",
        "mbarrier.test_wait.parity.shared.b64 %p2, [bar], 0;",
    );
    mbarrier(
        "mbarrier.init.shared.b64 [bar], 2;",
        "mbarrier.inval.shared.b64 [bar]; mbarrier.init.shared.b64 [bar], 2;",
    );
    mbarrier("mbarrier.arrive.shared.b64 _, [bar], 3;", "mbarrier.arrive.shared.b64 _, [bar], 2;");
    mbarrier("mbarrier.init.shared.b64 [other], 0;", "mbarrier.init.shared.b64 [other], 1;");
    mbarrier("mbarrier.init.shared.b64 [other], 1048576;", "mbarrier.init.shared.b64 [other], 1048575;");
    mbarrier(
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 1048576;",
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 1048575;",
    );
    mbarrier(
        "mbarrier.complete_tx.shared::cta.b64 [bar], 1048576;",
        "mbarrier.complete_tx.shared::cta.b64 [bar], 1048575;",
    );
    mbarrier(
        "mbarrier.arrive.noComplete.shared.b64 %rd1, [bar], 2;",
        "mbarrier.arrive.noComplete.shared.b64 %rd1, [bar], 1;",
    );
    mbarrier("mbarrier.inval.shared.b64 [other];", "mbarrier.inval.shared.b64 [bar];");
}

#[test]
fn a_mbarrier_in_memory_that_nobody_wrote() {
    let body = ".shared .align 8 .b64 bar;\nsetp.ne.u32 %p1, %t, 0; @%p1 ret; FIX\nmbarrier.arrive.shared.b64 _, [bar]; // here";
    Case::new(&body.replace("FIX", "")).faults(Uninitialised).thread(0).address(1024);
    Case::new(&body.replace("FIX", "mbarrier.init.shared.b64 [bar], 1;")).passes();
}

/// Phases are not skipped: more arrivals than a phase takes belong to the next one.
#[test]
fn one_arrival_too_many_for_two_phases() {
    let body = |n: u32| {
        format!(
            ".shared .align 8 .b64 bar;\nsetp.ne.u32 %p1, %t, 0; @%p1 ret; mbarrier.init.shared.b64 [bar], 1; mov.u32 %r1, 0;\nL: mbarrier.arrive.shared.b64 _, [bar], {n}; // here\nadd.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 5; @%p2 bra L;"
        )
    };
    Case::new(&body(2)).faults(Barrier);
    Case::new(&body(1)).passes();
}

#[test]
fn the_barrier_of_a_cluster() {
    let twice = "barrier.cluster.arrive.aligned; FIX\nbarrier.cluster.arrive.aligned; // here\nbarrier.cluster.wait.aligned;";
    Case::new(&twice.replace("FIX", "")).grid(2).cluster(2).faults(Barrier);
    Case::new(&twice.replace("FIX", "barrier.cluster.wait.aligned;")).grid(2).cluster(2).passes();
    let wait = "FIX\nbarrier.cluster.wait.aligned; // here";
    Case::new(&wait.replace("FIX", "")).grid(2).cluster(2).faults(Barrier);
    Case::new(&wait.replace("FIX", "barrier.cluster.arrive.aligned;")).grid(2).cluster(2).passes();
}
