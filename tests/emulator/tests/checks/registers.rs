//! `setmaxnreg`: registers that warps give back and take.

use cuda_emulator::report::FaultKind::{Deadlock, NotConverged, Trap, Unsupported};

use crate::support::Case;

/// Three warpgroups of a block that may have 168 registers a thread; `%r1` is the number of the warpgroup,
/// `%p1` says whether it is the first.
fn groups(body: &str) -> Case {
    let head = "shr.u32 %r1, %t, 7; setp.eq.u32 %p1, %r1, 0; shr.u32 %r2, %t, 5;";
    let mut case = Case::new(&format!("{head}\n{body}")).block(384).zeros(384 * 4);
    case.directives = ".maxntid 384 .minnctapersm 1".to_owned();
    case
}

/// The first warpgroup goes down to `few` registers, the two others up to `many`.
fn specialised(few: u32, many: u32) -> Case {
    groups(&format!(
        "@%p1 bra FEW;\nsetmaxnreg.inc.sync.aligned.u32 {many}; // here\nbra END;\nFEW: setmaxnreg.dec.sync.aligned.u32 {few};\nEND: st.global.u32 [%o], 1;"
    ))
}

#[test]
fn what_is_given_back_is_enough() {
    specialised(40, 232).passes();
    specialised(24, 240).passes();
    specialised(168, 168).passes();
}

/// 256 threads want 72 registers more each, 128 have given back 128 each.
#[test]
fn an_increase_that_cannot_be_met() {
    let message = specialised(40, 240).faults(Deadlock).fault.message.clone();
    assert!(message.contains("waits for 2304 registers"), "{message}");
    assert!(message.contains("given back") && message.contains("PTX line"), "{message}");
    specialised(168, 176).faults(Deadlock);
}

/// The increase comes first and waits for the decrease, in every order.
#[test]
fn an_increase_waits() {
    groups("@!%p1 setmaxnreg.inc.sync.aligned.u32 232; bar.sync 1; @%p1 setmaxnreg.dec.sync.aligned.u32 40;")
        .faults(Deadlock);
    groups("@%p1 setmaxnreg.dec.sync.aligned.u32 40; bar.sync 1; @!%p1 setmaxnreg.inc.sync.aligned.u32 232;")
        .passes();
}

#[test]
fn directions() {
    groups("@%p1 setmaxnreg.inc.sync.aligned.u32 160; // here").faults(Trap);
    groups("@%p1 setmaxnreg.dec.sync.aligned.u32 176; // here").faults(Trap);
    let again = |fix: &str| {
        groups(&format!(
            "@!%p1 bra END; setmaxnreg.dec.sync.aligned.u32 64;\n{fix}\nsetmaxnreg.inc.sync.aligned.u32 96; // here\nEND:"
        ))
    };
    // Between two changes the warps of a warpgroup have to synchronise.
    again("").faults(NotConverged);
    again("bar.sync 1, 128;").passes();
}

#[test]
fn all_warps_of_a_warpgroup_take_part() {
    // Three of four; four of two warpgroups.
    groups("setp.lt.u32 %p2, %r2, 3; @%p2 setmaxnreg.dec.sync.aligned.u32 40;").faults(NotConverged);
    groups("setp.lt.u32 %p2, %r2, 6; setp.gt.u32 %p3, %r2, 1; and.pred %p2, %p2, %p3; @%p2 setmaxnreg.dec.sync.aligned.u32 40;")
        .faults(NotConverged);
    // The same number, but not the same instruction.
    groups("setp.lt.u32 %p2, %r2, 2; @!%p1 bra END; @%p2 setmaxnreg.dec.sync.aligned.u32 40; @!%p2 setmaxnreg.dec.sync.aligned.u32 40; END:")
        .faults(NotConverged);
    // A warp that is no part of a whole warpgroup; lanes of a warp.
    let mut case = groups("setmaxnreg.dec.sync.aligned.u32 40; // here").block(96);
    case.faults(NotConverged);
    case.body = "setp.lt.u32 %p2, %l, 16;\n@%p2 setmaxnreg.dec.sync.aligned.u32 40; // here".to_owned();
    case.faults(NotConverged);
}

#[test]
fn kernels_whose_registers_are_unknown_are_refused() {
    let refused = |directives: &str, instruction: &str| {
        let mut case = Case::new(instruction).block(128);
        case.directives = directives.to_owned();
        case.refused()
    };
    let dec = "setmaxnreg.dec.sync.aligned.u32 40;";
    for directives in ["", ".maxntid 128", ".reqntid 128", ".minnctapersm 1"] {
        assert!(refused(directives, dec).contains(".maxnreg"), "{directives}");
    }
    for number in [16, 44, 264, 0] {
        let message = refused(".maxnreg 168", &format!("setmaxnreg.dec.sync.aligned.u32 {number};"));
        assert!(message.contains(&format!("found {number}")), "{message}");
    }
}

/// `.maxnreg` and `.minnctapersm` say how many there are, and launches must fit.
#[test]
fn registers_of_a_launch() {
    let with = |directives: &str, threads: u32, body: &str| {
        let mut case = Case::new(body).block(threads).zeros(4);
        case.directives = directives.to_owned();
        case
    };
    with(".maxnreg 64", 256, "setmaxnreg.dec.sync.aligned.u32 64;").passes();
    with(".maxnreg 64", 256, "setmaxnreg.dec.sync.aligned.u32 72; // here").faults(Trap);
    with(".maxntid 256 .minnctapersm 2", 256, "setmaxnreg.dec.sync.aligned.u32 128;").passes();
    with(".maxntid 256 .minnctapersm 2", 256, "setmaxnreg.dec.sync.aligned.u32 136; // here").faults(Trap);
    let message = with(".maxnreg 168", 512, "setmaxnreg.dec.sync.aligned.u32 40;")
        .faults(Unsupported)
        .fault
        .message
        .clone();
    assert!(message.contains("168 registers for each of 512 threads"), "{message}");
}
