//! SwiGLU at the width of Qwen2.5-0.5B.

use deepguard::ops::mlp::Mlp;

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, random};

#[test]
fn swiglu_and_backward() {
    if uncounted() {
        return;
    }
    let (rows, width) = (64, 4864);
    let [forward, backward] = count(["swiglu", "swiglu_backward"], |cuda| {
        let (gate_up, mut h) = (random(cuda, 2 * rows * width, 1.0), buffer(cuda, rows * width));
        let mut dgate_up = buffer(cuda, 2 * rows * width);
        cuda.swiglu(h.view_mut(), gate_up.view(), width);
        cuda.swiglu_backward(dgate_up.view_mut(), h.view(), gate_up.view(), width);
    });
    check("swiglu", &forward, rows * 6 * width);
    check("swiglu_backward", &backward, rows * 10 * width);
    narrow("swiglu", &forward, 0);
    narrow("swiglu_backward", &backward, 0);
}
