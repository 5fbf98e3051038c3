//! RMSNorm at the widths of Qwen2.5.

use deepguard::ops::norm::Norm;

use super::counting::{count, narrow, uncounted};
use super::memory::{buffer, check, random};

#[test]
fn rms_norm_and_backward() {
    if uncounted() {
        return;
    }
    for (rows, width) in [(8192, 896), (4096, 3584)] {
        let [forward, backward] = count(["rms_norm", "rms_norm_backward"], |cuda| {
            let (x, mut y, mut rstd) =
                (random(cuda, rows * width, 1.0), buffer(cuda, rows * width), buffer(cuda, rows));
            let weight = buffer(cuda, width);
            cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-6);
            let mut dx = buffer(cuda, rows * width);
            cuda.rms_norm_backward(dx.view_mut(), y.view(), x.view(), rstd.view(), weight.view());
        });
        check(&format!("rms_norm {width}"), &forward, rows * (4 * width + 4) + 4 * width);
        check(&format!("rms_norm_backward {width}"), &backward, rows * (8 * width + 4) + 4 * width);
        // A row's rstd is one number, which a warp reads.
        narrow("rms_norm", &forward, rows);
        narrow("rms_norm_backward", &backward, 32 * rows);
    }
}
