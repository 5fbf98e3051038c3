//! Places outside, freed, misaligned or never written.

use cuda_emulator::machine::{Launch, Machine, Module, Options};
use cuda_emulator::report::FaultKind::{
    self, Misaligned, OutOfBounds, Trap, Uninitialised, Unsupported, UseAfterFree,
};

use crate::support::{Buffer, Case};

/// The address in global memory at which thread 5 of block 1 goes wrong.
fn wrong_global(kind: FaultKind, offset: i64, bytes: usize, access: &str) {
    let body = format!(
        "setp.ne.u32 %p1, %t, 37; mov.u64 %rd1, %a1; @%p1 bra GO; add.s64 %rd1, %rd1, {offset};\nGO:\n{access} // here\nst.global.u32 [%o], 1;"
    );
    let case = Case::new(&body).grid(2).zeros(256).zeros(bytes);
    case.faults(kind).block(1).at(1, offset).fault.thread.iter().for_each(|t| assert_eq!(*t, [5, 0, 0]));
    Case::new(&body.replace(&format!("%rd1, {offset};"), "%rd1, 0;"))
        .grid(2)
        .zeros(256)
        .zeros(bytes)
        .passes();
}

#[test]
fn outside_global_memory() {
    let accesses = [
        "ld.global.u32 %r1, [%rd1];",
        "ld.u32 %r1, [%rd1];",
        "ld.volatile.global.u32 %r1, [%rd1];",
        "st.global.u32 [%rd1], 5;",
        "atom.global.add.u32 %r1, [%rd1], 1;",
        "red.global.add.f32 [%rd1], %f1;",
        "prefetch.global.L2 [%rd1];",
    ];
    for access in accesses {
        for offset in [-4, 64, 1 << 20, -(1 << 30)] {
            wrong_global(OutOfBounds, offset, 64, access);
        }
    }
    // The first bytes are inside, the last are not.
    for (access, offset) in [
        ("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];", 48),
        ("st.global.v2.u64 [%rd1], {%rd2, %rd3};", 48),
    ] {
        wrong_global(OutOfBounds, offset, 56, access);
    }
}

#[test]
fn a_null_pointer_and_addresses_of_no_space() {
    for (address, reported) in [(0u64, 0u64), (0x18, 0x18), (0x7000_0000_0000_0000, 0x7000_0000_0000_0000)] {
        let body = format!("mov.u64 %rd1, {address};\nld.u32 %r1, [%rd1]; // here");
        Case::new(&body).faults(OutOfBounds).thread(0).address(reported);
    }
}

#[test]
fn misaligned_global_memory() {
    for (access, offset) in [
        ("ld.global.u32 %r1, [%rd1];", 2),
        ("ld.global.u16 %h1, [%rd1];", 1),
        ("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];", 8),
        ("st.global.u64 [%rd1], %rd2;", 4),
        ("atom.global.add.u32 %r1, [%rd1], 1;", 1),
        ("red.global.v2.f32.add [%rd1], {%f1, %f2};", 4),
        ("atom.global.cas.b64 %rd2, [%rd1], 0, 1;", 4),
    ] {
        wrong_global(Misaligned, offset, 64, access);
    }
}

#[test]
fn global_memory_that_nobody_wrote() {
    for access in [
        "ld.global.u32 %r1, [%rd1];",
        "ld.u8 %r1, [%rd1];",
        "atom.global.add.u32 %r1, [%rd1], 1;",
        "red.global.xor.b32 [%rd1], 1;",
    ] {
        let body =
            format!("setp.ne.u32 %p1, %t, 9; @%p1 ret; add.u64 %rd1, %a1, 16; //first\n{access} // here");
        Case::new(&body).zeros(4).unwritten(64).faults(Uninitialised).thread(9).at(1, 16);
        let fixed = body.replace("//first", "\nst.global.u32 [%rd1], 5;");
        Case::new(&fixed).zeros(4).unwritten(64).passes();
    }
    // A part that nobody wrote is enough.
    let body = "setp.ne.u32 %p1, %t, 0; @%p1 ret; st.global.u32 [%a0], 1; st.global.u32 [%a0+8], 1;\nld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%a0]; // here";
    Case::new(body).unwritten(16).faults(Uninitialised).at(0, 0);
}

#[test]
fn freed_memory() {
    let body = "st.global.u32 [%o], 1; // here";
    let machine = Machine::new(Options { memory: 1 << 24, ..Options::default() });
    let module = Module::load(&Case::new(body).zeros(128).ptx(), &machine.memory).expect("loads");
    let address = machine.memory.alloc(128).expect("fits");
    machine.memory.alloc(128).expect("fits");
    let params = address.to_le_bytes().to_vec();
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        dynamic_shared: 0,
        params,
        cooperative: false,
    };
    let function = module.function("k").expect("k");
    machine.launch(&function, &launch).expect("passes while it is there");
    machine.memory.free(address).expect("frees");
    let fault = machine.launch(&function, &launch).expect_err("faults");
    assert_eq!(
        (fault.kind, fault.address, fault.thread),
        (UseAfterFree, Some(address), Some([0, 0, 0])),
        "{fault}"
    );
}

fn shared(kind: FaultKind, access: &str, wrong: &str, right: &str, address: u64) {
    let body = |offset: &str| {
        format!(
            ".shared .align 16 .b8 sm[64];\nmov.u32 %r1, sm; setp.ne.u32 %p1, %t, 3; @%p1 ret; st.shared.v4.u32 [%r1], {{1, 2, 3, 4}}; st.shared.v4.u32 [%r1+16], {{1, 2, 3, 4}};\n\
             add.u32 %r1, %r1, {offset};\n{access} // here"
        )
    };
    Case::new(&body(wrong)).faults(kind).thread(3).address(address);
    Case::new(&body(right)).passes();
}

/// Shared memory starts at 1024.
#[test]
fn outside_shared_memory() {
    for access in [
        "ld.shared.u32 %r2, [%r1];",
        "st.shared.u32 [%r1], 1;",
        "atom.shared.add.u32 %r2, [%r1], 1;",
        "red.shared.inc.u32 [%r1], 1;",
    ] {
        shared(OutOfBounds, access, "64", "0", 1088);
        shared(OutOfBounds, access, "-4", "0", 1020);
    }
    shared(OutOfBounds, "ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [%r1];", "64", "16", 1088);
    shared(OutOfBounds, "mbarrier.init.shared.b64 [%r1], 1;", "64", "32", 1088);
}

#[test]
fn misaligned_shared_memory() {
    shared(Misaligned, "ld.shared.u32 %r2, [%r1];", "2", "4", 1026);
    shared(Misaligned, "st.shared.v2.u32 [%r1], {%r2, %r3};", "4", "8", 1028);
    shared(Misaligned, "atom.shared.add.u64 %rd1, [%r1], 1;", "4", "8", 1028);
    shared(Misaligned, "mbarrier.init.shared.b64 [%r1], 1;", "4", "8", 1028);
}

#[test]
fn shared_memory_that_nobody_wrote() {
    shared(Uninitialised, "ld.shared.u32 %r2, [%r1];", "32", "28", 1056);
    shared(Uninitialised, "atom.shared.add.u32 %r2, [%r1], 1;", "32", "28", 1056);
    shared(Uninitialised, "ld.shared.v4.u32 {%r2, %r3, %r4, %r5}, [%r1];", "32", "16", 1056);
    // What an earlier block left counts for nothing.
    let body = ".shared .align 4 .b32 sm[32];\nmov.u32 %r1, sm; mad.lo.u32 %r1, %l, 4, %r1; setp.eq.u32 %p1, %u0, 0; @%p1 st.shared.u32 [%r1], 1;\nld.shared.u32 %r2, [%r1]; // here";
    let mut case = Case::new(body).grid(2);
    case.threads = 1;
    case.faults(Uninitialised).block(1);
    Case::new(&body.replace("@%p1 st", "st")).grid(2).passes();
}

#[test]
fn local_memory_and_parameters() {
    let body = |offset: u32, access: &str| {
        format!(
            ".local .align 16 .b8 lo[32];\nmov.u64 %rd1, lo; add.u64 %rd1, %rd1, {offset};\n{access} // here"
        )
    };
    for access in ["ld.local.u32 %r1, [%rd1];", "st.local.u32 [%rd1], 5;"] {
        Case::new(&body(32, access)).faults(OutOfBounds).thread(0).address(32);
        Case::new(&body(2, access)).faults(Misaligned).thread(0).address(2);
        Case::new(&body(28, access)).passes();
    }
    let body = |offset: u32| format!("mov.u64 %rd1, p0;\nld.param.u32 %r1, [%rd1+{offset}]; // here");
    Case::new(&body(8)).zeros(4).faults(OutOfBounds).thread(0).address(8);
    Case::new(&body(2)).zeros(4).faults(Misaligned).thread(0).address(2);
    Case::new(&body(4)).zeros(4).passes();
    let body = "mov.u64 %rd1, p0; cvta.param.u64 %rd1, %rd1;\nst.u32 [%rd1], 5; // here";
    Case::new(body).zeros(4).faults(OutOfBounds).thread(0);
}

/// A shared address used as a global one and the other way round.
#[test]
fn the_wrong_space() {
    let body = ".shared .align 4 .b32 sm;\nmov.u64 %rd1, sm;\nld.global.u32 %r1, [%rd1]; // here";
    Case::new(body).faults(OutOfBounds).thread(0).address(1024);
    let body = "cvt.u32.u64 %r1, %a0;\nst.shared.u32 [%r1], 1; // here";
    Case::new(body).zeros(4).faults(OutOfBounds).thread(0);
    let body = "cvta.to.shared.u64 %rd1, %a0; // here";
    Case::new(body).zeros(4).faults(OutOfBounds).thread(0).at(0, 0);
    let body = ".shared .align 4 .b32 sm;\nmov.u64 %rd1, sm; cvta.shared.u64 %rd1, %rd1; setp.eq.u32 %p1, %l, 1; selp.b64 %rd1, %a0, %rd1, %p1;\nld.u32 %r1, [%rd1]; // here";
    Case::new(body).zeros(4).faults(Unsupported).thread(1);
}

#[test]
fn traps_name_their_thread() {
    let body = "setp.eq.u32 %p1, %t, 70;\n@%p1 trap; // here";
    Case::new(body).block(96).faults(Trap).thread(70);
    Case::new(&body.replace("70", "96")).block(96).passes();
    let body = "TS: .branchtargets A, B;\nbrx.idx %t, TS; // here\nA: B:";
    Case::new(body).faults(Trap).thread(2);
    Case::new(&body.replace("brx.idx %t", "and.b32 %r1, %t, 1; brx.idx %r1")).passes();
}

/// Three-dimensional blocks and grids are named by all coordinates.
#[test]
fn places_in_three_dimensions() {
    let body = "mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ctaid.z; mov.u32 %r4, %tid.x; mad.lo.u32 %r1, %r1, 10, %r2; mad.lo.u32 %r1, %r3, 100, %r1; mad.lo.u32 %r1, %r4, 1000, %r1; setp.ne.u32 %p1, %r1, 2112; @%p1 ret;\n\
        ld.global.u32 %r1, [%a0+64]; // here";
    let mut case = Case::new(body).buffer(Buffer::Bytes(vec![0; 64]));
    case.block = [3, 4, 5];
    case.grid = [1, 1, 2];
    let faulted = case.faults(OutOfBounds).at(0, 64);
    assert_eq!((faulted.fault.block, faulted.fault.thread), ([0, 0, 1], Some([2, 1, 2])));
}

#[test]
fn lines_of_the_source_are_named() {
    let body = ".loc 1 42 7\nld.global.u32 %r1, [%a0+64]; // here\n.loc 1 43 7";
    let faulted = Case::new(body).outside(".file 1 \"kernels.cu\"").zeros(64).faults(OutOfBounds);
    assert_eq!(faulted.fault.source, Some(("kernels.cu".to_owned(), 42)));
}
