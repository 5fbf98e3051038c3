//! Nobody can move, or nobody comes to an end.

use cuda_emulator::report::FaultKind::{Deadlock, Timeout};

use crate::support::Case;

#[test]
fn a_barrier_that_is_never_complete() {
    let body = "setp.lt.u32 %p1, %t, 32;\n@%p1 bar.sync 1, 64; // here";
    Case::new(body).block(64).faults(Deadlock);
    Case::new(&body.replace("@%p1", "")).block(64).passes();
    let body = "setp.lt.u32 %p1, %t, 32; @%p1 bra A;\nbar.sync 1; // here\nA:\nbar.sync 2; // here";
    Case::new(body).block(64).faults(Deadlock);
}

#[test]
fn a_mbarrier_with_too_few_arrivals_or_bytes() {
    for (arrive, fixed) in [
        (
            "mbarrier.arrive.expect_tx.shared.b64 _, [bar], 80;",
            "mbarrier.arrive.expect_tx.shared.b64 _, [bar], 64;",
        ),
        (
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 64;",
            "mbarrier.arrive.expect_tx.shared.b64 _, [bar], 64;",
        ),
    ] {
        let body = format!(
            ".shared .align 128 .b8 sm[64]; .shared .align 8 .b64 bar;\nsetp.ne.u32 %p1, %t, 0; @!%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @%p1 bra W; {arrive}\n\
             cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [sm], [%a0], 64, [bar];\n\
             W: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; // here\n@!%p2 bra W; // here"
        );
        let faulted = Case::new(&body).block(64).zeros(64).faults(Deadlock);
        assert!(faulted.fault.message.contains("mbarrier"), "{}", faulted.fault);
        Case::new(&body.replace(arrive, fixed)).block(64).zeros(64).passes();
    }
}

#[test]
fn a_cluster_that_does_not_come_together() {
    let body = "mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %tid.x; setp.lt.u32 %p1, %r2, 32; setp.eq.u32 %p2, %r1, 0; and.pred %p1, %p1, %p2;\n@%p1 bar.sync 1, 64; // here\n\
        barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned; // here";
    Case::new(body).grid(2).cluster(2).block(64).faults(Deadlock);
    Case::new(&body.replace("1, 64", "1, 32")).grid(2).cluster(2).block(64).passes();
}

#[test]
fn an_endless_loop_and_a_long_one() {
    let mut case = Case::new(
        "mov.u32 %r1, 0;\nL: add.u32 %r1, %r1, 1; // here\nsetp.ne.u32 %p1, %r1, LIMIT; // here\n@%p1 bra L; // here",
    );
    case.limit = 1000;
    Case { body: case.body.replace("LIMIT", "0"), ..case.clone() }.faults(Timeout).block(0);
    Case { body: case.body.replace("LIMIT", "300"), ..case.clone() }.passes();
    Case { body: case.body.replace("LIMIT", "400"), ..case.clone() }.faults(Timeout);
    let mut case = Case::new("L: ld.volatile.global.u32 %r1, [%a0]; // here\nsetp.eq.u32 %p1, %r1, 0; // here\n@%p1 bra L; // here").zeros(4);
    case.limit = 1000;
    case.faults(Timeout);
    // A limit that a short kernel does not reach does not stop it, however small.
    let mut case = Case::new("st.global.u32 [%o], 1;").zeros(128);
    case.limit = 64;
    case.passes();
}
