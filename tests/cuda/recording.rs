use deepguard::cuda::Cuda;
use deepguard::ops::norm::Norm;
use deepguard::ops::{Arena, Buffer, Device, Element};

use crate::alone;
use crate::emulator::{checked, own_cuda};

fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    checked(Arena::build(cuda, |arena| arena.buffer("test", &[len]))).0
}

/// A recording is started as a whole or not at all.
#[test]
fn cuda_recordings_with_an_error_are_not_started() {
    let _alone = alone();
    let cuda = own_cuda();
    let (x, weight) = (buffer(&cuda, 32), buffer(&cuda, 16));
    let (mut y, mut short, mut rstd) = (buffer(&cuda, 32), buffer(&cuda, 31), buffer(&cuda, 2));
    cuda.graph("test", || {
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
        cuda.rms_norm(short.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    });
    assert!(cuda.finish().unwrap_err().to_string().contains("expected 32 elements, found 31"));
    assert_eq!(cuda.to_host(rstd.view()), [0.0, 0.0], "part of it ran");
    cuda.graph("test", || cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5));
    checked(cuda.finish());
    assert!(cuda.to_host(rstd.view())[0] > 0.0, "the next one did not run");
}
