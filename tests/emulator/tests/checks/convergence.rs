//! Instructions that all of their lanes must reach together.

use cuda_emulator::report::FaultKind::NotConverged;

use crate::support::Case;

#[test]
fn a_barrier_in_divergent_code() {
    for barrier in [
        "bar.sync 0;",
        "bar.arrive 1, 64;",
        "bar.red.popc.u32 %r1, 0, %p1;",
        "barrier.cluster.arrive.aligned;",
        "wgmma.fence.sync.aligned;",
    ] {
        let body = format!("and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 0;\n@%p1 {barrier} // here");
        Case::new(&body).block(64).faults(NotConverged);
        if barrier.starts_with("bar.") {
            let body = format!("setp.lt.u32 %p1, %t, 64;\n@%p1 {barrier}");
            Case::new(&body).block(64).passes();
        }
    }
    let body = "setp.lt.u32 %p1, %l, 16; @%p1 bra A; add.u32 %r1, %r1, 1; bra B;\nA: bar.sync 0; // here\nB:";
    Case::new(body).faults(NotConverged);
    Case::new(&body.replace("A: bar.sync 0;", "A: nanosleep.u32 1;").replace("B:", "B: bar.sync 0;"))
        .passes();
}

#[test]
fn shuffles_votes_and_the_like_without_all_of_their_members() {
    for operation in [
        "shfl.sync.idx.b32 %r1, %t, 0, 31, MASK;",
        "vote.sync.ballot.b32 %r1, %p1, MASK;",
        "match.any.sync.b32 %r1, %t, MASK;",
        "redux.sync.add.u32 %r1, %t, MASK;",
        "bar.warp.sync MASK;",
        "elect.sync _|%p2, MASK;",
    ] {
        let body = |mask: &str| {
            format!(
                "setp.lt.u32 %p1, %t, 16; @!%p1 bra J;\n{} // here\nJ: bar.warp.sync -1; // here",
                operation.replace("MASK", mask)
            )
        };
        // The upper half waits at another barrier: neither can go on.
        Case::new(&body("-1")).faults(NotConverged);
        Case::new(&body("0xFFFF")).passes();
        // Lanes that are not in the mask.
        Case::new(&body("0xFF")).faults(NotConverged);
    }
}

/// "All non-exited threads named in the mask must execute": the emulator is stricter for masks other than
/// that of the whole warp, whose results would depend on lanes that are gone.
#[test]
fn members_that_have_exited() {
    let body = "setp.ge.u32 %p1, %t, 8; @%p1 exit;\nshfl.sync.bfly.b32 %r1, %t, 8, 31, 0xFFFF; // here";
    Case::new(body).faults(NotConverged);
    Case::new(&body.replace("0xFFFF", "0xFF")).passes();
}

#[test]
fn matrices_by_a_part_of_a_warp() {
    let multiply = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1, %r1, %r1}, {%r2, %r2}, {%f1, %f1, %f1, %f1};";
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [sm];";
    let store = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [sm], {%r5};";
    for operation in [multiply, load, store, "movmatrix.sync.aligned.m8n8.trans.b16 %r5, %r6;"] {
        let head = ".shared .align 16 .b8 sm[16];\nsetp.eq.u32 %p2, %l, 0; @%p2 st.shared.v4.u32 [sm], {0, 0, 0, 0}; bar.sync 0; setp.ne.u32 %p1, %l, 31;\n";
        Case::new(&format!("{head}@%p1 {operation} // here")).faults(NotConverged);
        Case::new(&format!("{head}@!%p1 exit;\n{operation} // here")).faults(NotConverged);
        // The last warp of the block has 16 lanes.
        Case::new(&format!("{head}{operation} // here")).block(48).faults(NotConverged);
        Case::new(&format!("{head}{operation} // here")).block(64).passes();
    }
}
