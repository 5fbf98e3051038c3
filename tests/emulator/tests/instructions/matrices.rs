//! Matrices through the executor.

use crate::support::tensors::{COPY, DESCRIPTORS, MULTIPLY, STORE, case, element, fragments};
use crate::support::{Case, each, lanes};

/// Word `j` of lane `t` of an 8 × 8 matrix of halves holds row `t / 4`, columns `2 (t % 4)` and the next.
#[test]
fn ldmatrix_and_stmatrix() {
    let fill = ".shared .align 16 .b8 sm[512];\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 16, %r1; mul.lo.u32 %r3, %t, 4; add.u32 %r4, %r3, 1; add.u32 %r5, %r3, 2; add.u32 %r6, %r3, 3;\n\
        st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6}; bar.warp.sync -1;\n";
    let body = format!(
        "{fill}ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r3, %r4, %r5, %r6}}, [%r2]; mad.lo.u32 %r3, %r6, 1000, %r3; st.global.u32 [%o], %r3;"
    );
    assert_eq!(lanes(&body), each(|t| (96 + t) * 1000 + t));
    // Only the first eight lanes give addresses.
    let body = format!(
        "{fill}and.b32 %r7, %t, 7; setp.gt.u32 %p1, %t, 7; xor.b32 %r7, %r7, 3; mad.lo.u32 %r2, %r7, 16, %r1; selp.u32 %r2, 3, %r2, %p1;\n\
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r3}}, [%r2]; st.global.u32 [%o], %r3;"
    );
    assert_eq!(lanes(&body), each(|t| ((t / 4) ^ 3) * 4 + t % 4));
    let body = format!(
        "{fill}ldmatrix.sync.aligned.m8n8.x1.trans.shared::cta.b16 {{%r3}}, [%r2]; movmatrix.sync.aligned.m8n8.trans.b16 %r3, %r3; st.global.u32 [%o], %r3;"
    );
    assert_eq!(lanes(&body), each(|t| t));
    let body = format!(
        "{fill}add.u32 %r3, %t, 500; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {{%r3}}; bar.warp.sync -1; mad.lo.u32 %r2, %t, 4, %r1; ld.shared.u32 %r4, [%r2]; st.global.u32 [%o], %r4;"
    );
    assert_eq!(lanes(&body), each(|t| 500 + t));
}

#[test]
fn mma_through_the_executor() {
    // A is all ones, B all twos: every element of D is 16 · 2 + 1.
    let body = "mov.b32 %r1, 0x3C003C00; mov.b32 %r2, 0x40004000; mov.f32 %f1, 0f3F800000;\n\
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1, %r1, %r1}, {%r2, %r2}, {%f1, %f1, %f1, %f1};\n\
        add.f32 %f1, %f1, %f4; cvt.rzi.u32.f32 %r3, %f1; st.global.u32 [%o], %r3;";
    assert_eq!(lanes(body), each(|_| 66));
}

#[test]
fn wgmma_from_shared_memory() {
    let body = format!("{COPY}{DESCRIPTORS}{MULTIPLY}{STORE}");
    assert_eq!(case(&body).output_of_seeds(0, 10), fragments(element));
}

/// Groups complete in order; accumulators go through two multiplications without a wait between.
#[test]
fn wgmma_groups() {
    let multiply = "wgmma.fence.sync.aligned;\n\
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd10, %rd11, %p2, 1, 1, 0, 0; wgmma.commit_group.sync.aligned;\n\
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd10, %rd11, %p2, 1, -1, 0, 0;\n\
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd10, %rd11, %p2, 1, 1, 0, 0; wgmma.commit_group.sync.aligned;\n\
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f5, %f6, %f7, %f8}, %rd10, %rd11, 0, 1, 1, 0, 0; wgmma.commit_group.sync.aligned;\n\
        wgmma.wait_group.sync.aligned 1; add.f32 %f1, %f1, %f1; wgmma.wait_group.sync.aligned 0; add.f32 %f1, %f1, %f5; add.f32 %f4, %f4, %f8;\n";
    let body = format!("{COPY}{DESCRIPTORS}{multiply}{STORE}");
    let twice = |row, column| {
        element(row, column)
            * if row % 16 < 8 && column % 2 == 0 {
                3.0
            } else if row % 16 >= 8 && column % 2 == 1 {
                2.0
            } else {
                1.0
            }
    };
    assert_eq!(case(&body).output_of_seeds(0, 4), fragments(twice));
}

#[test]
fn wgmma_with_a_in_registers() {
    // A fragment: rows t / 4 and t / 4 + 8, columns 2 (t % 4) and 8 more, from the copy in shared memory.
    let load = "and.b32 %r7, %t, 31; shr.u32 %r8, %t, 5; shr.u32 %r9, %r7, 2; and.b32 %r10, %r7, 3; mad.lo.u32 %r11, %r8, 512, %r1; mad.lo.u32 %r11, %r9, 16, %r11; mad.lo.u32 %r11, %r10, 4, %r11;\n\
        ld.shared.u32 %r20, [%r11]; ld.shared.u32 %r21, [%r11+256]; ld.shared.u32 %r22, [%r11+128]; ld.shared.u32 %r23, [%r11+384];\n";
    let multiply =
        MULTIPLY.replace("%rd10, %rd11", "{%r20, %r21, %r22, %r23}, %rd11").replace("1, 1, 0, 0", "1, 1, 0");
    let body = format!("{COPY}{load}{DESCRIPTORS}{multiply}{STORE}");
    assert_eq!(case(&body).output_of_seeds(0, 4), fragments(element));
}

#[test]
fn wgmma_by_a_predicate_that_says_not_to_accumulate() {
    let body =
        format!("{COPY}{DESCRIPTORS}mov.f32 %f1, 0f40000000; setp.ne.u32 %p2, 0, 0;\n{MULTIPLY}{STORE}");
    assert_eq!(case(&body).output(0), fragments(element));
}

#[test]
fn registers_of_a_warpgroup_may_be_moved_and_dependent_launches_awaited() {
    let body = "setmaxnreg.dec.sync.aligned.u32 40; griddepcontrol.wait; griddepcontrol.launch_dependents; st.global.u32 [%o], 1;";
    let mut case = Case::new(body).block(128).zeros(512);
    case.directives = ".maxnreg 64".to_owned();
    assert_eq!(case.output(0), vec![1; 128]);
}
