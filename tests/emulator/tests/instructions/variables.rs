//! Variables of the module and of kernels.

use crate::support::{Case, each, lanes};

#[test]
fn initialisers_of_every_kind() {
    let outside = ".global .align 4 .u32 one = 7;\n.global .align 8 .b8 bytes[8] = {1, 2, 0xFF, -1};\n.global .align 4 .f32 floats[2] = {0f3F800000, 2.5};\n\
        .global .align 8 .f64 double = 1.5;\n.global .align 2 .u16 grid[2][3] = {{1, 2, 3}, {4, 5, 6}};\n\
        .global .align 8 .u64 pointers[4] = {one, generic(one), generic(floats)+4, floats+4};\n.const .align 4 .s32 minus = -5;\n.visible .global .align 4 .b32 zero[3];";
    let body = "ld.global.u32 %r1, [one]; ld.global.u8 %r2, [bytes+3]; ld.global.u8 %r3, [bytes+4]; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3;\n\
        ld.global.f32 %f1, [floats+4]; cvt.rzi.u32.f32 %r2, %f1; add.u32 %r1, %r1, %r2; ld.global.f64 %d1, [double]; mul.f64 %d1, %d1, 0d4000000000000000; cvt.rzi.u32.f64 %r2, %d1; add.u32 %r1, %r1, %r2;\n\
        ld.global.u16 %r2, [grid+8]; add.u32 %r1, %r1, %r2; ld.global.u64 %rd1, [pointers]; ld.global.u32 %r2, [%rd1]; add.u32 %r1, %r1, %r2; ld.global.u64 %rd1, [pointers+8]; ld.u32 %r2, [%rd1]; add.u32 %r1, %r1, %r2;\n\
        ld.global.u64 %rd1, [pointers+16]; ld.global.u64 %rd2, [pointers+24]; setp.ne.u64 %p1, %rd1, %rd2; @%p1 trap; ld.f32 %f2, [%rd1]; setp.neu.f32 %p1, %f1, %f2; @%p1 trap;\n\
        ld.const.s32 %r2, [minus]; add.u32 %r1, %r1, %r2; ld.global.u32 %r2, [zero+8]; add.u32 %r1, %r1, %r2; st.global.u32 [%o], %r1;";
    let expected = 7 + 255 + 2 + 3 + 5 + 7 + 7 - 5;
    assert_eq!(Case::new(body).outside(outside).zeros(128).output(0), each(|_| expected));
}

#[test]
fn a_variable_that_another_module_defines_is_refused() {
    let message =
        Case::new("ld.global.u32 %r1, [far];").outside(".extern .global .align 4 .b32 far;").refused();
    assert!(message.contains("far") && message.contains("line "), "{message}");
}

#[test]
fn static_and_dynamic_shared_memory_do_not_overlap() {
    let body = ".shared .align 4 .b32 first[32]; .shared .align 128 .b8 second[4];\n\
        mov.u32 %r1, first; mad.lo.u32 %r1, %t, 4, %r1; mov.u32 %r2, dynamic; mad.lo.u32 %r2, %t, 4, %r2; st.shared.u32 [%r1], %t; add.u32 %r3, %t, 100; st.shared.u32 [%r2], %r3;\n\
        setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [second], 7; bar.warp.sync -1; ld.shared.u32 %r4, [%r1]; mov.u64 %rd1, dynamic; cvt.u32.u64 %r5, %rd1; mad.lo.u32 %r5, %t, 4, %r5; ld.shared.u32 %r6, [%r5];\n\
        ld.shared.u32 %r7, [second]; ld.shared.u32 %r8, [dynamic+124]; add.u32 %r4, %r4, %r6; add.u32 %r4, %r4, %r7; add.u32 %r4, %r4, %r8;\n\
        mov.u32 %r9, dynamic; and.b32 %r9, %r9, 1023; add.u32 %r4, %r4, %r9; mov.u32 %r9, second; and.b32 %r9, %r9, 127; add.u32 %r4, %r4, %r9; st.global.u32 [%o], %r4;";
    let mut case = Case::new(body).outside(".extern .shared .align 1024 .b8 dynamic[];").zeros(128);
    case.dynamic_shared = 128;
    assert_eq!(case.output(0), each(|t| 2 * t + 100 + 7 + 131));
}

#[test]
fn shared_variables_of_the_module() {
    let body = "mov.u32 %r1, s; mad.lo.u32 %r1, %t, 4, %r1; st.shared.u32 [%r1], %t; ld.shared.u32 %r2, [%r1]; st.global.u32 [%o], %r2;";
    assert_eq!(Case::new(body).outside(".shared .align 4 .b32 s[32];").zeros(128).output(0), each(|t| t));
}

#[test]
fn local_memory_belongs_to_a_thread() {
    let body = ".local .align 16 .b8 depot[64];\nmov.u64 %rd1, depot; and.b32 %r1, %t, 15; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %rd1, %rd2; st.local.u32 [%rd3], %t;\n\
        cvta.local.u64 %rd4, %rd3; ld.u32 %r2, [%rd4]; st.global.u32 [%o], %r2;";
    assert_eq!(lanes(body), each(|t| t));
}

/// As the inline assembly of the CUDA headers writes it.
#[test]
fn directives_without_blanks_between() {
    let body = "{.reg.b16 hl, hu;\n .reg.b32 fl,fu;\nmov.b32 fl,0X25CF25CFU;mov.b32 {hl,hu},fl;cvt.u32.u16 %r1,hl;}\n.shared.align 8 .b8 sm[8];\nst.global.u32 [%o], %r1;";
    assert_eq!(lanes(body), each(|_| 0x25CF));
}
