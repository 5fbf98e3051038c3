//! Blocks that hand values to each other through global memory.

use cuda_emulator::report::FaultKind::{Deadlock, Race};

use crate::support::Case;

/// Block 0 stores a value and raises a flag; block 1 waits for the flag and loads the value.
fn hand_over(raise: &str, look: &str) -> Case {
    let body = format!(
        "setp.ne.u32 %p1, %u0, 0; @%p1 bra LOOK;\nst.global.u32 [%a1], 7; {raise} ret;\n\
         LOOK: {look} setp.eq.u32 %p2, %r1, 0; @%p2 bra LOOK; FENCE\n\
         ld.global.u32 %r2, [%a1]; // here\nst.global.u32 [%o], %r2;"
    );
    let mut case = Case::new(&body.replace("FENCE", "")).grid(2).block(1).zeros(8).zeros(4).zeros(4);
    case.cooperative = true;
    case
}

/// The same with a fence behind the look.
fn fenced(raise: &str, look: &str, fence: &str) -> Case {
    let mut case = hand_over(raise, look);
    case.body = case.body.replace("bra LOOK; \n", &format!("bra LOOK; {fence}\n"));
    case
}

#[test]
fn release_and_acquire_hand_over() {
    let (release, acquire) =
        ("red.release.gpu.global.add.u32 [%a2], 1;", "ld.acquire.gpu.global.u32 %r1, [%a2];");
    let (relaxed, look) =
        ("red.relaxed.gpu.global.add.u32 [%a2], 1;", "ld.relaxed.gpu.global.u32 %r1, [%a2];");
    assert_eq!(hand_over(release, acquire).output(0), [0, 7]);
    hand_over(relaxed, acquire).faults(Race);
    hand_over(release, look).faults(Race);
    // What is released within a block is not released to others.
    hand_over("red.release.cta.global.add.u32 [%a2], 1;", acquire).faults(Race);
    hand_over(release, "ld.acquire.cta.global.u32 %r1, [%a2];").faults(Race);
}

#[test]
fn fences_hand_over() {
    let (raise, look) = ("atom.global.exch.b32 %r3, [%a2], 1;", "ld.volatile.global.u32 %r1, [%a2];");
    let released = format!("membar.gl; {raise}");
    fenced(&released, look, "membar.gl;").passes();
    fenced(&released, look, "fence.acq_rel.gpu;").passes();
    fenced(&released, "atom.global.or.b32 %r1, [%a2], 0;", "membar.gl;").passes();
    fenced(&released, look, "ld.acquire.sys.global.u32 %r1, [%a2];").passes();
    fenced(raise, look, "membar.gl;").faults(Race);
    fenced(&released, look, "").faults(Race);
    fenced(&released, look, "membar.cta;").faults(Race);
    fenced(&format!("membar.cta; {raise}"), look, "membar.gl;").faults(Race);
}

/// What one warp has acquired, another knows after a barrier, not before.
#[test]
fn a_barrier_passes_on_what_was_acquired() {
    let body = "setp.ne.u32 %p1, %u0, 0; mov.u32 %r9, %tid.x; setp.ne.u32 %p3, %r9, 0; @%p1 bra LOOK;\n\
        st.global.u32 [%o+1024], 5; bar.sync 0; @!%p3 red.release.gpu.global.add.u32 [%a1], 1; ret; // here\n\
        LOOK: @%p3 bra MEET;\nSPIN: ld.acquire.gpu.global.u32 %r1, [%a1]; setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN;\n\
        MEET: bar.sync 0;\nld.global.u32 %r2, [%o+768]; // here\nst.global.u32 [%o], %r2;";
    let mut case = Case::new(body).grid(2).block(64).zeros(2048).zeros(4);
    case.cooperative = true;
    assert_eq!(case.output(0)[64..128], [5; 64]);
    let unmet = case.body.replace("MEET: bar.sync 0;", "MEET: bar.warp.sync -1;");
    Case { body: unmet, ..case.clone() }.faults(Race);
    let unmet = case.body.replace("bar.sync 0; @!%p3 red", "bar.warp.sync -1; @!%p3 red");
    Case { body: unmet, ..case }.faults(Race);
}

/// A write has to wait until others have read what was there.
#[test]
fn a_write_waits_for_readers() {
    let body = "setp.ne.u32 %p1, %u0, 0; @%p1 bra LOOK;\nld.global.u32 %r1, [%a1]; st.global.u32 [%o], %r1; RAISE ret;\n\
         LOOK: ld.acquire.gpu.global.u32 %r1, [%a2]; setp.eq.u32 %p2, %r1, 0; @%p2 bra LOOK;\n\
         st.global.u32 [%a1], 9; // here\n";
    let case = |raise: &str| {
        let mut case = Case::new(&body.replace("RAISE", raise)).grid(2).block(1).zeros(8).zeros(4).zeros(4);
        case.cooperative = true;
        case
    };
    case("red.release.gpu.global.add.u32 [%a2], 1;").passes();
    case("red.relaxed.gpu.global.add.u32 [%a2], 1;").faults(Race);
}

/// Only blocks of a cooperative launch are all there: a block that waits for a later one may wait for ever.
#[test]
fn waiting_for_later_blocks_takes_a_cooperative_launch() {
    let meet = "red.release.gpu.global.add.u32 [%a1], 1;\n\
        SPIN: ld.acquire.gpu.global.u32 %r1, [%a1]; // here\nsetp.lt.u32 %p1, %r1, 6; // here\n@%p1 bra SPIN; // here\n";
    let mut case = Case::new(meet).grid(6).block(1).zeros(24).zeros(4);
    let faulted = case.faults(Deadlock);
    assert!(faulted.fault.message.contains("cooperative"), "{}", faulted.fault);
    case.cooperative = true;
    case.passes();
    // Nobody comes to the seventh place.
    case.body = case.body.replace("%r1, 6", "%r1, 7");
    case.faults(Deadlock);

    // Waiting for earlier blocks is fine.
    let chain = "SPIN: ld.acquire.gpu.global.u32 %r1, [%a1]; setp.ne.u32 %p1, %r1, %u0; @%p1 bra SPIN;\n\
        red.release.gpu.global.add.u32 [%a1], 1;";
    Case::new(chain).grid(20).block(1).zeros(80).zeros(4).passes();
}
