//! `mbarrier`.

use crate::support::Case;

const INIT: &str = ".shared .align 8 .b64 bar; .shared .align 4 .b32 sm[128];\nsetp.eq.u32 %p1, %t, 0; mov.u32 %r20, sm; mad.lo.u32 %r20, %t, 4, %r20;";

#[test]
fn arrivals_of_a_block_and_waits_by_state_and_by_parity() {
    let body = format!(
        "{INIT}\n@%p1 mbarrier.init.shared::cta.b64 [bar], 64; bar.sync 0; mov.u32 %r1, 0; mov.u32 %r5, 0;\n\
         ROUND: add.u32 %r2, %r1, %t; st.shared.u32 [%r20], %r2; mbarrier.arrive.shared.b64 %rd1, [bar];\n\
         T: mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @!%p2 bra T;\nxor.b32 %r3, %t, 63; mov.u32 %r4, sm; mad.lo.u32 %r4, %r3, 4, %r4; ld.shared.u32 %r6, [%r4]; add.u32 %r5, %r5, %r6;\n\
         mbarrier.arrive.release.cta.shared::cta.b64 _, [bar];\nP: mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p3, [bar], 1, 1000; @!%p3 bra P;\n\
         add.u32 %r1, %r1, 1; setp.lt.u32 %p4, %r1, 5; @%p4 bra ROUND; st.global.u32 [%o], %r5;"
    );
    let expected: Vec<u32> = (0..64).map(|t| 10 + 5 * (63 - t)).collect();
    assert_eq!(Case::new(&body).block(64).zeros(256).output_of_seeds(0, 20), expected);
}

#[test]
fn counts_and_pending_phases() {
    let body = format!(
        "{INIT}\n@!%p1 bra DONE; mbarrier.init.shared.b64 [bar], 5; mbarrier.arrive.shared.b64 %rd1, [bar], 3; mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @%p2 trap;\n\
         mbarrier.test_wait.parity.shared.b64 %p2, [bar], 0; @%p2 trap; mbarrier.test_wait.parity.shared.b64 %p2, [bar], 1; @!%p2 trap;\n\
         mbarrier.arrive.noComplete.shared.b64 %rd2, [bar], 1; mbarrier.test_wait.shared.b64 %p2, [bar], %rd2; @%p2 trap;\n\
         mbarrier.arrive.shared.b64 %rd3, [bar]; mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @!%p2 trap; mbarrier.test_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 trap;\n\
         mbarrier.test_wait.parity.shared.b64 %p2, [bar], 1; @%p2 trap;\n\
         mbarrier.pending_count.b64 %r1, %rd1; mbarrier.pending_count.b64 %r2, %rd2; mbarrier.pending_count.b64 %r3, %rd3; mad.lo.u32 %r1, %r1, 10, %r2; mad.lo.u32 %r1, %r1, 10, %r3;\n\
         mbarrier.inval.shared.b64 [bar]; mbarrier.init.shared.b64 [bar], 1; mbarrier.arrive.shared.b64 %rd4, [bar]; mbarrier.test_wait.shared.b64 %p2, [bar], %rd4; @!%p2 trap; st.global.u32 [%o], %r1;\nDONE:"
    );
    assert_eq!(Case::new(&body).zeros(128).output(0)[0], 521);
}

/// `arrive_drop` lowers the number of arrivals of all later phases.
#[test]
fn dropped_participants_are_not_waited_for() {
    let body = format!(
        "{INIT}\n@%p1 mbarrier.init.shared.b64 [bar], 64; bar.sync 0; setp.ge.u32 %p2, %t, 32; @%p2 mbarrier.arrive_drop.shared.b64 _, [bar]; @%p2 exit;\n\
         mbarrier.arrive.shared.b64 %rd1, [bar];\nA: mbarrier.try_wait.shared.b64 %p3, [bar], %rd1; @!%p3 bra A;\n\
         mbarrier.arrive.shared.b64 %rd1, [bar];\nB: mbarrier.try_wait.shared.b64 %p3, [bar], %rd1; @!%p3 bra B; st.global.u32 [%o], 1;"
    );
    let found = Case::new(&body).block(64).zeros(256).output_of_seeds(0, 10);
    assert_eq!(found.iter().sum::<u32>(), 32);
}

#[test]
fn bytes_are_waited_for() {
    let body = format!(
        "{INIT}\n@!%p1 bra DONE; mbarrier.init.shared.b64 [bar], 1; mbarrier.arrive.expect_tx.shared::cta.b64 %rd1, [bar], 48; mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @%p2 trap;\n\
         mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [bar], 16; mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 8; mbarrier.complete_tx.shared::cta.b64 [bar], 32;\n\
         mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @%p2 trap; mbarrier.complete_tx.shared::cta.b64 [bar], 8; mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @!%p2 trap; st.global.u32 [%o], 1;\nDONE:"
    );
    assert_eq!(Case::new(&body).zeros(128).output(0)[0], 1);
}

#[test]
fn barriers_by_generic_address_and_register() {
    let body = format!(
        "{INIT}\nmov.u64 %rd1, bar; cvta.shared.u64 %rd2, %rd1; mov.u32 %r1, bar; @%p1 mbarrier.init.b64 [%rd2], 32; bar.warp.sync -1; mbarrier.arrive.b64 %rd3, [%rd2];\n\
         W: mbarrier.try_wait.b64 %p2, [%rd2], %rd3; @!%p2 bra W; mbarrier.arrive.shared.b64 %rd3, [%r1+0];\nV: mbarrier.try_wait.shared.b64 %p2, [%r1], %rd3; @!%p2 bra V; st.global.u32 [%o], 1;"
    );
    assert_eq!(Case::new(&body).zeros(128).output(0), vec![1; 32]);
}
