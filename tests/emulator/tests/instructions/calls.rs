//! Device functions, `printf` and `assert`.

use std::process::Command;

use cuda_emulator::report::FaultKind;

use crate::support::{Case, each};

const FUNCTIONS: &str = "
.func (.param .b32 result) square(.param .b32 x)
{
.reg .b32 %r<4>;
ld.param.u32 %r1, [x];
mul.lo.u32 %r2, %r1, %r1;
st.param.b32 [result], %r2;
ret;
}
.func (.param .b32 result) pick(.param .b32 x, .param .b64 y)
{
.reg .b32 %r<8>;
.reg .b64 %rd<4>;
.reg .pred %p<2>;
ld.param.u32 %r1, [x];
ld.param.u64 %rd1, [y];
setp.gt.u32 %p1, %r1, 10;
@%p1 bra BIG;
{
.param .b32 p0;
st.param.b32 [p0], %r1;
.param .b32 r0;
call.uni (r0), square, (p0);
ld.param.b32 %r2, [r0];
}
st.param.b32 [result], %r2;
ret;
BIG:
cvt.u32.u64 %r3, %rd1;
st.param.b32 [result], %r3;
ret;
}
.func store(.param .b64 p, .param .align 8 .b8 pair[16])
{
.reg .b64 %rd<4>;
.reg .b32 %r<4>;
ld.param.u64 %rd1, [p];
mov.b64 %rd2, pair;
ld.param.u32 %r1, [%rd2+8];
ld.param.u32 %r2, [pair];
add.u32 %r1, %r1, %r2;
st.global.u32 [%rd1], %r1;
}";

#[test]
fn functions_return_values_and_call_each_other() {
    let body = "{ .param .b32 a; .param .b64 b; .param .b32 r; add.u32 %r1, %t, 0; st.param.b32 [a], %t; mul.wide.u32 %rd1, %t, 1000;\n\
        st.param.b64 [b], %rd1; call.uni (r), pick, (a, b); ld.param.b32 %r2, [r]; }\nst.global.u32 [%o], %r2;";
    let expected = each(|t| if t > 10 { 1000 * t } else { t * t });
    assert_eq!(Case::new(body).outside(FUNCTIONS).zeros(128).output(0), expected);
}

#[test]
fn guarded_calls_and_structures_as_parameters() {
    let body = "setp.lt.u32 %p1, %t, 7;\n{ .param .b64 a; .param .align 8 .b8 b[16]; st.param.b64 [a], %o; st.param.b32 [b], %t;\n\
        st.param.b32 [b+8], 100; @%p1 call store, (a, b); }";
    let expected = each(|t| if t < 7 { t + 100 } else { 0 });
    assert_eq!(Case::new(body).outside(FUNCTIONS).zeros(128).output(0), expected);
}

#[test]
fn recursion_and_missing_functions_are_refused() {
    let round = ".func a();\n.func b() { call a; ret; }\n.func a() { call b; ret; }";
    let message = Case::new("call a;").outside(round).refused();
    assert!(message.contains("recursion") && message.contains("line "), "{message}");
    let message = Case::new("call.uni nobody, ();").outside(".extern .func nobody();").refused();
    assert!(message.contains("nobody"), "{message}");
}

/// The kernel that [`printf_writes_what_c_would`] runs in a process of its own.
#[test]
#[ignore = "run by printf_writes_what_c_would"]
fn print() {
    let format = "x=%d %5u|%-4d|%04x %s %c %.2f %lld %e %%\\n";
    let bytes: Vec<String> =
        format.replace("\\n", "\n").bytes().chain([0]).map(|byte| byte.to_string()).collect();
    let outside = format!(
        ".extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 v);\n\
         .global .align 1 .b8 format[{}] = {{{}}};\n.global .align 1 .b8 word[3] = {{104, 105, 0}};",
        bytes.len(),
        bytes.join(", ")
    );
    let body = "setp.gt.u32 %p1, %t, 1; @%p1 ret;\n.local .align 8 .b8 depot[72]; mov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1;\n\
        neg.s32 %r1, %t; st.local.u32 [%rd1], %r1; st.local.u32 [%rd1+4], 42; st.local.u32 [%rd1+8], 7; st.local.u32 [%rd1+12], 255;\n\
        mov.u64 %rd3, word; cvta.global.u64 %rd3, %rd3; st.local.u64 [%rd1+16], %rd3; st.local.u32 [%rd1+24], 90;\n\
        mov.f64 %d1, 0d400921FB54442D18; st.local.f64 [%rd1+32], %d1; st.local.u64 [%rd1+40], -5000000000;\n\
        mov.f64 %d1, 0d4093480000000000; st.local.f64 [%rd1+48], %d1;\n\
        mov.u64 %rd4, format; cvta.global.u64 %rd4, %rd4;\n\
        { .param .b64 a; .param .b64 b; .param .b32 r; st.param.b64 [a], %rd4; st.param.b64 [b], %rd2; call.uni (r), vprintf, (a, b); }";
    Case::new(body).outside(&outside).run().map_err(|f| f.fault).expect("prints");
}

#[test]
fn printf_writes_what_c_would() {
    let program = std::env::current_exe().expect("a test binary");
    let output = Command::new(program)
        .args(["--exact", "calls::print", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    for x in ["x=0", "x=-1"] {
        let line = format!("{x}    42|7   |00ff hi Z 3.14 -5000000000 1.234000e+03 %\n");
        assert!(text.contains(&line), "expected {line:?} in {text}");
    }
}

#[test]
fn a_failed_assertion_names_what_failed_and_where() {
    let text = |text: &str| text.bytes().chain([0]).map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    let outside = format!(
        ".extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);\n\
         .global .align 1 .b8 message[6] = {{{}}};\n.global .align 1 .b8 file[5] = {{{}}};",
        text("i < n"),
        text("k.cu")
    );
    let body = "setp.ne.u32 %p1, %t, 37; @%p1 bra DONE;\n\
        mov.u64 %rd1, message; cvta.global.u64 %rd1, %rd1; mov.u64 %rd2, file; cvta.global.u64 %rd2, %rd2;\n\
        { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 s; st.param.b64 [m], %rd1; st.param.b64 [f], %rd2;\n\
        st.param.b32 [l], 77; st.param.b64 [n], 0; st.param.b64 [s], 1;\ncall.uni __assertfail, (m, f, l, n, s); // here\n}\nDONE:";
    let faulted = Case::new(body).block(64).outside(&outside).faults(FaultKind::Trap).thread(37);
    assert!(faulted.fault.message.contains("k.cu:77: i < n"), "{}", faulted.fault);
}
