//! Two threads, no order between them.

use cuda_emulator::report::FaultKind::Race;

use crate::support::Case;

const SHARED: &str = ".shared .align 16 .b32 sm[256];\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 4, %r1; xor.b32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 4, %r1; xor.b32 %r4, %t, 1; mad.lo.u32 %r4, %r4, 4, %r1;\n\
    st.shared.u32 [%r2], 0; st.shared.u32 [%r2+512], 0; bar.sync 0;\n";

/// A block of `threads` whose `fix` line is left out and put in.
fn race(threads: u32, body: &str, fix: &str) {
    let wrong = format!("{SHARED}{}", body.replace("FIX", ""));
    Case::new(&wrong).block(threads).zeros(4096).faults(Race);
    let right = format!("{SHARED}{}", body.replace("FIX", fix));
    Case::new(&right).block(threads).zeros(4096).passes();
}

#[test]
fn between_warps() {
    // Two writes of different values.
    race(
        64,
        "setp.lt.u32 %p1, %t, 32; and.b32 %r5, %t, 31; mad.lo.u32 %r5, %r5, 4, %r1;\n@%p1 st.shared.u32 [%r5], %t; // here\n\
         FIX\n@!%p1 st.shared.u32 [%r5], %t; // here",
        "bar.sync 0;",
    );
    // A write, then a read by another warp.
    race(
        64,
        "st.shared.u32 [%r2], %t; // here\nFIX\nld.shared.u32 %r5, [%r3]; // here\nst.global.u32 [%o], %r5;",
        "bar.sync 0;",
    );
}

#[test]
fn a_read_before_a_write() {
    race(
        64,
        "st.shared.u32 [%r2], %t; bar.sync 0;\nld.shared.u32 %r5, [%r3]; // here\nFIX\nst.shared.u32 [%r2], 7; // here",
        "bar.sync 0;",
    );
}

#[test]
fn a_double_buffer_that_is_written_too_early() {
    // Buffer b is read in round i and written in round i + 2: with one barrier too few in the loop, reading
    // and writing meet.
    let body = "mov.u32 %r10, 0; add.u32 %r12, %r2, 0; add.u32 %r13, %r3, 0;\nL: st.shared.u32 [%r12], %t; // here\nbar.sync 0;\nld.shared.u32 %r5, [%r13]; // here\nFIX\n\
        add.u32 %r10, %r10, 1; setp.lt.u32 %p1, %r10, 6; @%p1 bra L;";
    race(64, body, "bar.sync 0;");
    // Two buffers need only one barrier per round.
    let body = "mov.u32 %r10, 0;\nL: and.b32 %r11, %r10, 1; mad.lo.u32 %r12, %r11, 512, %r2; mad.lo.u32 %r13, %r11, 512, %r3; st.shared.u32 [%r12], %t; bar.sync 0; ld.shared.u32 %r5, [%r13];\n\
        add.u32 %r10, %r10, 1; setp.lt.u32 %p1, %r10, 6; @%p1 bra L;";
    Case::new(&format!("{SHARED}{body}")).block(64).passes();
}

#[test]
fn between_lanes_of_a_warp() {
    race(
        32,
        "st.shared.u32 [%r2], %t;\nFIX\nld.shared.u32 %r5, [%r4]; // here\nst.global.u32 [%o], %r5;",
        "bar.warp.sync -1;",
    );
    race(32, "st.shared.u32 [%r2], %t;\nFIX\nst.shared.u32 [%r4], %t; // here", "bar.warp.sync 0xFFFFFFFF;");
    race(
        32,
        "st.shared.u32 [%r2], %t;\nFIX\nmov.u32 %r6, %r1; mad.lo.u32 %r6, %t, 16, %r1; and.b32 %r6, %r6, 1151; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r6]; // here",
        "bar.warp.sync -1;",
    );
    // A shuffle is no barrier for memory ("shfl.sync" orders none; "bar.warp.sync" does).
    race(
        32,
        "st.shared.u32 [%r2], %t; shfl.sync.idx.b32 %r7, %t, 0, 31, -1;\nFIX\nld.shared.u32 %r5, [%r4]; // here",
        "bar.warp.sync -1;",
    );
}

#[test]
fn through_the_wrong_barrier() {
    // Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2; both pairs exchange with the other pair.
    let body = "xor.b32 %r6, %t, 64; mad.lo.u32 %r6, %r6, 4, %r1; st.shared.u32 [%r2], %t; // here\nsetp.lt.u32 %p1, %t, 64; mov.u32 %r7, 1; @!%p1 mov.u32 %r7, 2;\nbar.sync %r7, 64;\nFIX\nld.shared.u32 %r5, [%r6]; // here";
    race(128, body, "bar.sync 3, 128;");
    // Within a pair that is enough.
    Case::new(&format!("{SHARED}{}", body.replace("FIX", "").replace("%t, 64; mad", "%t, 32; mad")))
        .block(128)
        .passes();
}

#[test]
fn plain_accesses_against_atomics() {
    race(
        64,
        "setp.eq.u32 %p1, %t, 0;\n@%p1 st.shared.u32 [%r1], 0; // here\nFIX\n@!%p1 atom.shared.add.u32 %r5, [%r1], 1; // here",
        "bar.sync 0;",
    );
    race(
        64,
        "setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [%r1], 0; bar.sync 0;\nred.shared.add.u32 [%r1], 1; // here\nFIX\nld.shared.u32 %r5, [%r1]; // here",
        "bar.sync 0;",
    );
}

/// A flag orders only if it is released and acquired ("Memory Consistency Model: Synchronizes-With").
#[test]
fn through_a_flag_without_order() {
    let body = "setp.ge.u32 %p1, %t, 32; setp.eq.u32 %p2, %t, 0; @%p2 st.shared.u32 [sm+512], 0; bar.sync 0; @%p1 bra READ;\nst.shared.u32 [sm], 9; // here\nFIX\n\
        @%p2 atom.shared.exch.b32 %r9, [sm+512], 1; bra D;\nREAD: atom.shared.or.b32 %r9, [sm+512], 0; setp.eq.u32 %p3, %r9, 0; @%p3 bra READ;\nFIX\nld.shared.u32 %r5, [sm]; // here\nD:";
    race(64, body, "bar.warp.sync -1; fence.acq_rel.cta;");
}

#[test]
fn the_same_value_twice_is_no_race() {
    Case::new(&format!("{SHARED}st.shared.u32 [sm], 5; bar.sync 0; ld.shared.u32 %r5, [sm];"))
        .block(128)
        .passes();
}

/// Neighbouring bytes written by different threads do not race.
#[test]
fn neighbours_do_not_race() {
    let body = ".shared .align 4 .b8 bytes[128];\nmov.u32 %r1, bytes; add.u32 %r1, %r1, %t; st.shared.u8 [%r1], %t; ld.shared.u8 %r2, [%r1]; st.shared.u8 [%r1], %r2;";
    Case::new(body).block(128).passes();
    let body = ".shared .align 4 .b8 bytes[256];\nmov.u32 %r1, bytes; mad.lo.u32 %r1, %t, 2, %r1; cvt.u16.u32 %h1, %t; st.shared.b16 [%r1], %h1; ld.shared.u16 %h2, [%r1];";
    Case::new(body).block(128).passes();
}
