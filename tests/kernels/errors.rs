use deepguard::ErrorKind;
use deepguard::cuda::Cuda;
use deepguard::ops::attention::{Attention, Heads};
use deepguard::ops::norm::Norm;
use deepguard::ops::{Arena, Buffer, Device, Element};

use crate::emulator::{checked, own_cuda};

fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    checked(Arena::build(cuda, |arena| arena.buffer("test", &[len]))).0
}

#[test]
fn cuda_buffers_that_do_not_fit_are_refused_and_nothing_runs_after() {
    let cuda = own_cuda();
    let (x, weight) = (buffer(&cuda, 32), buffer(&cuda, 16));
    let (mut short, mut y, mut rstd) = (buffer(&cuda, 31), buffer(&cuda, 32), buffer(&cuda, 2));
    cuda.rms_norm(short.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
    let error = cuda.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.to_string(), "kernel rms_norm: y: expected 32 elements, found 31");
    checked(cuda.finish());
    assert_eq!(cuda.to_host(rstd.view()), [0.0, 0.0], "a launch after the error ran");

    let unaligned = x.slice(1..17);
    cuda.rms_norm(y.first_mut(16), rstd.first_mut(1), unaligned, weight.view(), 1e-5);
    let error = cuda.finish().unwrap_err().to_string();
    assert!(error.contains("kernel rms_norm: x: expected a start at a multiple of 16 bytes"), "{error}");
}

#[test]
fn cuda_without_rows_launches_nothing() {
    let cuda = own_cuda();
    let (x, weight) = (buffer(&cuda, 8), buffer(&cuda, 8));
    let (mut y, mut rstd) = (buffer(&cuda, 8), buffer(&cuda, 1));
    cuda.rms_norm(y.first_mut(0), rstd.first_mut(0), x.first(0), weight.view(), 1e-5);
    checked(cuda.finish());
}

#[test]
fn cuda_slices_of_another_stream_are_refused() {
    let cuda = own_cuda();
    let other = checked(cuda.stream().context().new_stream());
    let (own, foreign) = (checked(cuda.stream().alloc_zeros::<f32>(4)), checked(other.alloc_zeros::<f32>(4)));
    assert_eq!(checked(cuda.view(&own)).len(), 4);
    let refused = cuda.view(&foreign).err().expect("an error");
    assert_eq!(refused.kind(), ErrorKind::Usage);
}

#[test]
fn cuda_heads_that_attention_has_no_kernel_for_are_refused() {
    let cuda = own_cuda();
    for dim in [12, 136] {
        let heads = Heads { query: 1, key_value: 1, dim };
        let (mut o, mut lse, qkv) = (buffer(&cuda, dim), buffer(&cuda, 1), buffer(&cuda, 3 * dim));
        cuda.attention(o.view_mut(), lse.view_mut(), qkv.view(), &[], heads);
        let error = cuda.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        let expected = format!("heads of {dim} elements: expected a multiple of 8 up to 128 on CUDA");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
