//! Asynchronous copies whose bytes are touched too early.

use cuda_emulator::report::FaultKind::{
    self, InFlight, Misaligned, MissingProxyFence, OutOfBounds, Race, Trap, Uninitialised,
};

use crate::support::{Case, Map};

const HEAD: &str = ".shared .align 128 .b8 sm[2048]; .shared .align 8 .b64 bar;\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 16, %r1; mad.wide.u32 %rd1, %t, 16, %a0; setp.eq.u32 %p1, %t, 0;\n";

fn check(kind: FaultKind, body: &str, fix: &str) {
    check_in(32, kind, body, fix);
}

fn check_in(threads: u32, kind: FaultKind, body: &str, fix: &str) {
    let case =
        |fix: &str| Case::new(&format!("{HEAD}{}", body.replace("FIX", fix))).block(threads).words(&[7; 512]);
    case("").faults(kind);
    case(fix).passes();
}

#[test]
fn a_copy_that_nobody_waited_for() {
    let copy = "cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.commit_group;";
    check(InFlight, &format!("{copy}\nFIX\nld.shared.u32 %r3, [%r2]; // here"), "cp.async.wait_group 0;");
    check(InFlight, &format!("{copy}\nFIX\nst.shared.u32 [%r2], 1; // here"), "cp.async.wait_all;");
    check(
        InFlight,
        &format!("{copy}\nFIX\ncp.async.cg.shared.global [%r2], [%rd1], 16; // here"),
        "cp.async.wait_all;",
    );
    check(
        InFlight,
        &format!(
            "{copy}\nFIX\nmad.lo.u32 %r4, %l, 16, %r1; ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r3, %r4, %r5, %r6}}, [%r4]; // here"
        ),
        "cp.async.wait_all; bar.warp.sync -1;",
    );
    // The wait leaves one group too many.
    check(
        InFlight,
        &format!("{copy} cp.async.wait_group 1;\nFIX\nld.shared.u32 %r3, [%r2]; // here"),
        "cp.async.wait_group 0;",
    );
    // A wait does not cover what was not committed.
    check(
        InFlight,
        "cp.async.cg.shared.global [%r2], [%rd1], 16; FIX cp.async.wait_group 0;\nld.shared.u32 %r3, [%r2]; // here",
        "cp.async.commit_group;",
    );
}

#[test]
fn a_copy_that_other_warps_do_not_know_of() {
    let copy = "cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.wait_all;\nFIX\nxor.b32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 16, %r1;\nld.shared.u32 %r4, [%r3]; // here";
    let case =
        |fix: &str| Case::new(&format!("{HEAD}{}", copy.replace("FIX", fix))).block(64).words(&[7; 512]);
    // In some orders the other has not even begun: whichever it is, there is a fault.
    for seed in 0..20 {
        let faulted = case("").seed(seed).run().err().expect("faults");
        assert!(matches!(faulted.fault.kind, Race | InFlight | Uninitialised), "{}", faulted.fault);
    }
    case("bar.sync 0;").passes();
}

#[test]
fn sources_of_copies() {
    check(
        OutOfBounds,
        "FIX add.u64 %rd1, %rd1, 1600;\ncp.async.cg.shared.global [%r2], [%rd1], 16; // here",
        "sub.u64 %rd1, %rd1, 64;",
    );
    check(
        Misaligned,
        "add.u64 %rd1, %rd1, 8; FIX\ncp.async.cg.shared.global [%r2], [%rd1], 16; // here",
        "add.u64 %rd1, %rd1, 8;",
    );
    check(
        Misaligned,
        "add.u32 %r2, %r2, 4; FIX\ncp.async.ca.shared.global [%r2], [%rd1], 8; // here",
        "add.u32 %r2, %r2, 4;",
    );
    let body = |limit: u32| {
        format!(
            "{HEAD}setp.lt.u32 %p2, %t, {limit}; setp.lt.u32 %p3, %t, 5; @%p3 st.global.v4.u32 [%rd1], {{1, 2, 3, 4}};\n@%p2 cp.async.cg.shared.global [%r2], [%rd1], 16; // here\ncp.async.wait_all;"
        )
    };
    Case::new(&body(6)).unwritten(512).faults(Uninitialised).thread(5).at(0, 80);
    Case::new(&body(5)).unwritten(512).passes();
    check(
        Trap,
        "mov.u32 %r3, 17; FIX\ncp.async.cg.shared.global [%r2], [%rd1], 16, %r3; // here",
        "mov.u32 %r3, 16;",
    );
}

const LOAD: &str = "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 512; @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [sm], [%a0], 512, [bar];\nbar.warp.sync -1;\n";
const WAIT: &str = "W: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra W;";

#[test]
fn a_bulk_load_that_nobody_waited_for() {
    check(
        InFlight,
        &format!("{LOAD}FIX\nld.shared.u32 %r3, [%r2]; // here\n{}", WAIT.replace("W", "V")),
        WAIT,
    );
    check(InFlight, &format!("{LOAD}FIX\nst.shared.u32 [%r2], 5; // here\n{}", WAIT.replace("W", "V")), WAIT);
    // A test that has not succeeded is no wait.
    check(
        InFlight,
        &format!(
            "{LOAD}FIX mbarrier.test_wait.parity.shared.b64 %p2, [bar], 1;\nld.shared.u32 %r3, [%r2]; // here"
        ),
        WAIT,
    );
}

#[test]
fn sizes_and_places_of_bulk_copies() {
    let load = |size: &str, from: &str, to: &str| {
        format!(
            "{HEAD}setp.ne.u32 %p2, %t, 0; @%p2 ret; mbarrier.init.shared.b64 [bar], 1; mbarrier.arrive.expect_tx.shared.b64 _, [bar], 64;\ncp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [sm+{to}], [%a0+{from}], {size}, [bar]; // here\n{WAIT}"
        )
    };
    let case = |size: &str, from: &str, to: &str| Case::new(&load(size, from, to)).words(&[7; 32]);
    case("64", "64", "16").passes();
    case("63", "0", "0").faults(Trap).thread(0);
    case("0", "0", "0").faults(Trap).thread(0);
    case("64", "8", "0").faults(Misaligned).thread(0);
    case("64", "0", "8").faults(Misaligned).thread(0);
    case("64", "80", "0").faults(OutOfBounds).thread(0).at(0, 80);
    case("64", "0", "2032").faults(OutOfBounds).thread(0).address(1024 + 2032);
    Case::new(&load("64", "0", "0")).unwritten(128).faults(Uninitialised).thread(0).at(0, 0);
}

const STORE: &str =
    "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%a0], [sm], 512; @%p1 cp.async.bulk.commit_group;";

#[test]
fn stores_through_the_other_proxy_without_a_fence() {
    let tail = format!("{STORE} @%p1 cp.async.bulk.wait_group 0;");
    let line = tail.replacen("@%p1 cp.async.bulk.commit", "// here\n@%p1 cp.async.bulk.commit", 1);
    check(
        MissingProxyFence,
        &format!("st.shared.v4.u32 [%r2], {{1, 2, 3, 4}};\nFIX\nbar.sync 0;\n{line}"),
        "fence.proxy.async.shared::cta;",
    );
    check(
        MissingProxyFence,
        &format!("cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.wait_all;\nFIX\nbar.sync 0;\n{line}"),
        "fence.proxy.async;",
    );
    // A fence for global memory does not order shared memory, an ordinary fence is none for the proxy.
    check(
        MissingProxyFence,
        &format!(
            "st.shared.v4.u32 [%r2], {{1, 2, 3, 4}}; fence.proxy.async.global; fence.acq_rel.cta;\nFIX\nbar.sync 0;\n{line}"
        ),
        "fence.proxy.async.shared::cta;",
    );
    // The fence by the issuing thread alone, after the barrier, covers what the barrier ordered before it.
    check(
        MissingProxyFence,
        &format!("st.shared.v4.u32 [%r2], {{1, 2, 3, 4}};\nbar.sync 0;\nFIX\n{line}"),
        "@%p1 fence.proxy.async;",
    );
    // A fence without a barrier orders only the own writes.
    check_in(
        64,
        Race,
        &format!(
            "setp.lt.u32 %p3, %t, 32; @!%p3 bra D; st.shared.v4.u32 [%r2], {{1, 2, 3, 4}}; fence.proxy.async;\nFIX\n{line}\nD:"
        ),
        "bar.warp.sync -1;",
    );
}

#[test]
fn a_source_that_is_used_again_while_it_is_read() {
    let store = "st.shared.v4.u32 [%r2], {1, 2, 3, 4}; fence.proxy.async; bar.sync 0;";
    check(
        InFlight,
        &format!(
            "{store} {STORE}\nFIX bar.sync 0;\nst.shared.u32 [%r2], 9; // here\n@%p1 cp.async.bulk.wait_group 0;"
        ),
        "@%p1 cp.async.bulk.wait_group.read 0;",
    );
    // Not committed, so that the wait does not cover it.
    let uncommitted = STORE.replace("@%p1 cp.async.bulk.commit_group;", "");
    check(
        InFlight,
        &format!(
            "{store} {uncommitted} FIX @%p1 cp.async.bulk.wait_group.read 0; bar.sync 0;\nst.shared.u32 [%r2], 9; // here\n@%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;"
        ),
        "@%p1 cp.async.bulk.commit_group;",
    );
    // Exit while it is read.
    check(InFlight, &format!("{store} {STORE}\nFIX\nret; // here"), "@%p1 cp.async.bulk.wait_group.read 0;");
}

#[test]
fn tensor_loads_and_stores() {
    let head = format!("{HEAD}mov.b64 %rd2, extra; cvta.param.u64 %rd2, %rd2; setp.ne.u32 %p3, %t, 0;\n");
    let case = |body: String| {
        let mut case = Case::new(&format!("{head}{body}")).words(&[7; 512]);
        case.maps = vec![Map { buffer: 0, dims: vec![16, 16], boxes: vec![8, 8], swizzle: 0 }];
        case
    };
    let load = |fix: &str, to: &str| {
        format!(
            "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;\n@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [sm{to}], [%rd2, {{4, 4}}], [bar]; // load\nbar.warp.sync -1; {fix}\n\
         and.b32 %r3, %t, 15; mad.lo.u32 %r3, %r3, 16, %r1;\nld.shared.u32 %r4, [%r3]; // here\n{}",
            WAIT.replace("W", "V")
        )
    };
    case(load("", "")).faults(InFlight);
    case(load(WAIT, "")).passes();
    case(load(WAIT, "+64").replace("// here", "").replace("// load", "// here")).faults(Misaligned).thread(0);
    let store = |fix: &str| {
        format!(
            "st.shared.v4.u32 [%r2], {{1, 2, 3, 4}}; {fix} bar.sync 0;\n@%p1 cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd2, {{4, 4}}], [sm]; // here\n@%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;"
        )
    };
    case(store("")).faults(MissingProxyFence).thread(0);
    case(store("fence.proxy.async;")).passes();
}
