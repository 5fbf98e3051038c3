//! `wgmma` without what has to surround it.

use cuda_emulator::report::FaultKind::{self, InFlight, MissingProxyFence, NotConverged, OutOfBounds, Trap};

use crate::support::tensors::{COPY, DESCRIPTORS, MULTIPLY, STORE, case};

/// Replaces a text that must be there in the right kernel.
fn wrong(kind: FaultKind, right: &str, from: &str, to: &str) {
    assert!(right.contains(from), "{from}");
    case(right).passes();
    case(&right.replacen(from, to, 1)).faults(kind);
}

fn right() -> String {
    format!("{COPY}{DESCRIPTORS}{MULTIPLY}{STORE}")
}

#[test]
fn operands_that_were_stored_without_a_proxy_fence() {
    wrong(MissingProxyFence, &right(), "fence.proxy.async;\n", "");
    wrong(MissingProxyFence, &right(), "fence.proxy.async;\n", "fence.proxy.async.global;\n");
}

#[test]
fn operands_that_were_copied_without_a_proxy_fence() {
    let right = right().replace(
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1]; st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6};",
        "cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.wait_all;",
    );
    wrong(MissingProxyFence, &right, "fence.proxy.async;\n", "");
    wrong(InFlight, &right, "cp.async.wait_all;", "");
}

#[test]
fn accumulators_that_are_touched_too_early() {
    wrong(InFlight, &right(), "wgmma.wait_group.sync.aligned 0;\n", "");
    wrong(InFlight, &right(), "wgmma.wait_group.sync.aligned 0;\n", "wgmma.wait_group.sync.aligned 1;\n");
    wrong(InFlight, &right(), "wgmma.commit_group.sync.aligned;\n", "");
    let written = right().replace("wgmma.commit", "FIX wgmma.commit");
    case(&written.replace("FIX", "")).passes();
    case(&written.replace("FIX", "mov.f32 %f3, 0f00000000;")).faults(InFlight);
    // A guard that lets nobody through touches nothing.
    case(&written.replace("FIX", "setp.lt.u32 %p9, %t, 0; @%p9 mov.f32 %f3, 0f00000000;")).passes();
}

#[test]
fn registers_that_were_written_without_a_fence() {
    wrong(InFlight, &right(), "wgmma.fence.sync.aligned;\n", "");
    let load = "mov.b32 %r20, 0; mov.b32 %r21, 0; mov.b32 %r22, 0; mov.b32 %r23, 0;\n";
    let multiply =
        MULTIPLY.replace("%rd10, %rd11", "{%r20, %r21, %r22, %r23}, %rd11").replace("1, 1, 0, 0", "1, 1, 0");
    let right = format!("{COPY}{DESCRIPTORS}{load}{multiply}{STORE}");
    wrong(InFlight, &right, "wgmma.fence.sync.aligned;\n", "wgmma.fence.sync.aligned; mov.b32 %r22, 0;\n");
    wrong(InFlight, &right, "wgmma.commit", "mov.b32 %r21, 5;\nwgmma.commit");
}

#[test]
fn operands_that_are_overwritten_while_they_are_read() {
    let tail = "bar.sync 0; st.shared.u32 [%r2], 0;\n";
    let right = format!("{COPY}{DESCRIPTORS}{MULTIPLY}{tail}{STORE}");
    wrong(
        InFlight,
        &right,
        "wgmma.wait_group.sync.aligned 0;\nbar.sync 0; st.shared.u32 [%r2], 0;\n",
        "bar.sync 0; st.shared.u32 [%r2], 0;\nwgmma.wait_group.sync.aligned 0;\n",
    );
}

#[test]
fn three_warps_of_four() {
    wrong(NotConverged, &right(), "wgmma.fence", "setp.ge.u32 %p3, %t, 96; @%p3 exit; wgmma.fence");
    let mut three = case(&right().replace(STORE, ""));
    three.block = [96, 1, 1];
    // Three warps copy only a part, but the multiplication is refused before it reads.
    let found = three.run().err().expect("faults").fault;
    assert_eq!(found.kind, NotConverged, "{found}");
}

#[test]
fn descriptors() {
    wrong(Trap, &right(), "or.b64 %rd10, %rd9, 0x1000080000;", "or.b64 %rd10, %rd9, 0x1000088000;");
    wrong(
        OutOfBounds,
        &right(),
        "or.b64 %rd10, %rd9, 0x1000080000;",
        "or.b64 %rd10, %rd9, 0x1000080000; add.u64 %rd10, %rd10, 0x1000;",
    );
}
