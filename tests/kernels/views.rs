//! Memory of cudarc, and of others, as operations take it.

use std::sync::Arc;

use deepguard::ErrorKind;
use deepguard::cuda::Cuda;
use deepguard::cuda::cudarc::driver::{CudaContext, CudaStream, DevicePtr};
use deepguard::ops::elementwise::Elementwise;
use deepguard::ops::linear::{Linear, Write};
use deepguard::ops::loss::{HeadWeights, Loss};
use deepguard::ops::matrix::Matrix;
use deepguard::ops::sample::{Sample, Sampling};
use deepguard::ops::{Device, Mut, Ref};
use half::bf16;

use crate::emulator::{self, checked, own_cuda};

fn other_stream(cuda: &Cuda) -> Arc<CudaStream> {
    checked(cuda.stream().context().new_stream())
}

fn numbers(len: usize) -> Vec<bf16> {
    (0..len).map(|i| bf16::from_f32((i as f32 * 0.7).sin())).collect()
}

/// Nobody waits on the host: what is read comes after what was written before on the other stream, and before
/// what is written next; and the other way round.
#[test]
fn cuda_views_order_two_streams() {
    let cuda = own_cuda();
    let other = other_stream(&cuda);
    let n = 1000;
    let values = vec![1.5f32; n];
    let mut from = checked(other.clone_htod(&values));
    let mut to = checked(other.alloc_zeros::<bf16>(n));
    {
        let (from, mut to) = (checked(cuda.view(&from)), checked(cuda.view_mut(&mut to)));
        cuda.cast(to.get(), from.get());
    }
    checked(other.memset_zeros(&mut from));
    let copied = checked(other.clone_dtoh(&to));
    checked(other.synchronize());
    assert_eq!(copied, vec![bf16::from_f32(1.5); n]);
    checked(cuda.finish());
}

/// The memory of a slice that is dropped goes to another, which is written at once.
#[test]
fn cuda_slices_that_are_dropped_have_been_read() {
    let cuda = own_cuda();
    let other = other_stream(&cuda);
    let n = 1 << 12;
    let mut to = checked(cuda.stream().alloc_zeros::<bf16>(n));
    let from = checked(other.clone_htod(&vec![2.5f32; n]));
    let mut view = checked(cuda.view_mut(&mut to));
    cuda.cast(view.get(), checked(cuda.view(&from)).get());
    drop((view, from));
    let next = checked(other.clone_htod(&vec![9.0f32; n]));
    checked(other.synchronize());
    checked(cuda.finish());
    assert_eq!(checked(cuda.stream().clone_dtoh(&to)), vec![bf16::from_f32(2.5); n]);
    drop(next);
}

/// Views made beforehand are no part of a recording; one that is made in between ends it.
#[test]
fn cuda_views_and_recordings() {
    let cuda = own_cuda();
    let other = other_stream(&cuda);
    let from = checked(other.clone_htod(&[3.0f32; 64]));
    let mut to = [(); 2].map(|()| checked(other.alloc_zeros::<bf16>(64)));
    let [first, second] = &mut to;
    let (view, mut first) = (checked(cuda.view(&from)), checked(cuda.view_mut(first)));
    cuda.graph("views", || {
        cuda.cast(first.get(), view.get());
        let mut second = checked(cuda.view_mut(second));
        cuda.cast(second.get(), view.get());
    });
    drop((view, first));
    for to in &to {
        assert_eq!(checked(other.clone_dtoh(to)), [bf16::from_f32(3.0); 64]);
    }
    checked(cuda.finish());
}

#[test]
fn cuda_slices_without_events_and_of_other_contexts_are_refused() {
    let cuda = own_cuda();
    let context = checked(CudaContext::new(0));
    // SAFETY: nothing is done with what comes of it.
    unsafe { context.disable_event_tracking() };
    let (own, other) = (checked(context.new_stream()), checked(context.new_stream()));
    let without_events = checked(own.alloc_zeros::<f32>(4));
    assert_eq!(cuda.view(&without_events).err().expect("an error").kind(), ErrorKind::Usage);
    // On its own stream, there is nothing to wait for.
    let here = checked(Cuda::on_stream_with_ptx(own));
    assert_eq!(checked(here.view(&without_events)).get().len(), 4);
    let error = here.view(&checked(other.alloc_zeros::<f32>(4))).err().expect("an error").to_string();
    assert!(error.contains("a slice of another stream without events"), "{error}");
    for stream in [context.default_stream(), context.per_thread_stream()] {
        assert_eq!(Cuda::on_stream(stream).err().expect("an error").kind(), ErrorKind::Usage);
    }
}

/// Part of a slice, and a bare address.
#[test]
fn cuda_views_of_parts_and_addresses() {
    let cuda = own_cuda();
    let stream = cuda.stream();
    let from = checked(stream.clone_htod(&(0..64).map(|i| i as f32).collect::<Vec<_>>()));
    let mut to = checked(stream.alloc_zeros::<bf16>(64));
    {
        let part = from.slice(16..40);
        let mut place = to.slice_mut(8..32);
        let (view, mut place) = (checked(cuda.view(&part)), checked(cuda.view_mut(&mut place)));
        cuda.cast(place.get(), view.get());
    }
    let (address, _used) = from.device_ptr(stream);
    let other = checked(stream.alloc_zeros::<bf16>(8));
    let (place, _written) = other.device_ptr(stream);
    // SAFETY: both slices have that many elements, live until the end, and are of our own stream.
    let (view, to_address) =
        unsafe { (Ref::from_raw(address as usize + 64, 8), Mut::from_raw(place as usize, 8)) };
    cuda.cast(to_address, view);
    checked(cuda.finish());
    let found = checked(stream.clone_dtoh(&to));
    let expected: Vec<bf16> = (0..64)
        .map(|i| if (8..32).contains(&i) { i + 8 } else { 0 })
        .map(|i| bf16::from_f32(i as f32))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(checked(stream.clone_dtoh(&other))[3].to_f32(), 19.0);
}

/// `x Wᵀ` of slices in f32.
fn product(x: &[bf16], w: &[bf16], (k, stride): (usize, usize)) -> Vec<f32> {
    let dot = |x: &[bf16], w: &[bf16]| x.iter().zip(w).map(|(x, w)| x.to_f32() * w.to_f32()).sum::<f32>();
    x.chunks(k).flat_map(|x| w.chunks(stride).map(move |w| dot(x, &w[..k]))).collect()
}

/// A weight in a slice, of which it may be some columns, multiplies as one that was loaded: few rows and
/// many, forward and backward, and as a table. The slices are exactly as long as they have to be.
#[test]
fn cuda_weights_in_slices() {
    let cuda = own_cuda();
    let stream = cuda.stream();
    for (rows, n, k, stride) in
        [(3, 40, 24, 24), (3, 19, 24, 32), (70, 33, 13, 16), (130, 72, 64, 64), (40, 48, 40, 64)]
    {
        let (x, w) = (numbers(rows * k), numbers((n - 1) * stride + k));
        let (x_slice, w_slice) = (checked(stream.clone_htod(&x)), checked(stream.clone_htod(&w)));
        let mut y = checked(stream.alloc_zeros::<bf16>(rows * n));
        let (w_view, mut y_view) = (checked(cuda.view(&w_slice)), checked(cuda.view_mut(&mut y)));
        let weight = checked(cuda.weight(Matrix::strided(w_view.get(), n, k, stride)));
        cuda.linear(y_view.get(), checked(cuda.view(&x_slice)).get(), &weight, None, &[], Write::Overwrite);
        drop(y_view);
        checked(cuda.finish());
        let found = checked(stream.clone_dtoh(&y));
        for (i, (found, expected)) in found.iter().zip(product(&x, &w, (k, stride))).enumerate() {
            let error = (found.to_f32() - expected).abs();
            assert!(
                error <= 0.02 + expected.abs() / 100.0,
                "{rows}, {n}, {k}: [{i}]: {found}, not {expected}"
            );
        }
        let mut dx = checked(stream.alloc_zeros::<bf16>(rows * k));
        let mut dx_view = checked(cuda.view_mut(&mut dx));
        cuda.linear_backward(dx_view.get(), checked(cuda.view(&y)).get(), &weight);
        checked(cuda.finish());
    }
}

#[test]
fn cuda_weights_in_slices_that_do_not_fit_are_refused() {
    let cuda = own_cuda();
    let slice = checked(cuda.stream().alloc_zeros::<bf16>(256));
    let view = checked(cuda.view(&slice));
    let all = view.get();
    for (data, rows, cols, stride, expected) in [
        (all, 10, 20, 20, "expected rows that start on multiples of 16 bytes"),
        (all.slice(4..256), 4, 16, 16, "expected rows that start on multiples of 16 bytes"),
        (all, 17, 16, 16, "does not lie in 256 elements"),
        (all, 4, 16, 8, "does not lie in 256 elements"),
        (all, 1 << 60, 16, 16, "does not lie in 256 elements"),
    ] {
        let error = cuda.weight(Matrix { data, rows, cols, stride }).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A weight of one row may have any stride. Products refuse one that a kernel's integers do not hold.
#[test]
fn cuda_weights_with_too_large_a_stride_are_refused() {
    let cuda = own_cuda();
    let zeros = |len| checked(cuda.stream().alloc_zeros::<bf16>(len));
    let slice = zeros(16);
    let view = checked(cuda.view(&slice));
    let matrix = Matrix { data: view.get(), rows: 1, cols: 16, stride: 1 << 40 };
    let weight = checked(cuda.weight(matrix));
    for rows in [3, 70] {
        let (x, mut y) = (zeros(16 * rows), zeros(rows));
        let (x, mut y) = (checked(cuda.view(&x)), checked(cuda.view_mut(&mut y)));
        cuda.linear(y.get(), x.get(), &weight, None, &[], Write::Overwrite);
        let error = cuda.finish().expect_err("an error").to_string();
        assert!(error.contains("1099511627776 is too large"), "{error}");
    }
}

/// Rows of an odd length, whose last vector ends beyond a slice that is exactly as long as it has to be.
#[test]
fn cuda_kernels_read_no_more_than_a_slice_has() {
    if emulator::on_a_gpu() {
        return emulator::skipped("a GPU need not notice an access out of bounds");
    }
    let cuda = own_cuda();
    let stream = cuda.stream();
    let (rows, width) = (3, 1003);
    let (mut z, y) = (numbers(rows * width), numbers(rows * width));
    z[5] = bf16::from_f32(7.0);
    let (mut z, mut y) = (checked(stream.clone_htod(&z)), checked(stream.clone_htod(&y)));
    let mut tokens = checked(stream.alloc_zeros::<u32>(rows));
    let sampling = Sampling::new(0.8, 0.9, 50, 3);
    let mut tokens_view = checked(cuda.view_mut(&mut tokens));
    let numbers = checked(stream.clone_htod(&[0u32, 1, 2]));
    let numbers = checked(cuda.view(&numbers));
    let mut positions = checked(stream.clone_htod(&[1u32; 3]));
    let mut positions = checked(cuda.view_mut(&mut positions));
    let z_view = checked(cuda.view(&z));
    cuda.sample(tokens_view.get(), None, positions.get(), z_view.get(), numbers.get(), sampling);
    drop(z_view);
    let [mut nll, mut kl] = [(); 2].map(|()| checked(stream.alloc_zeros::<f32>(rows)));
    let targets = checked(stream.clone_htod(&[1i32, -1, 1002]));
    let mask = checked(stream.clone_htod(&[1.0f32, 1.0, 0.0]));
    let (mut nll_view, mut kl_view) = (checked(cuda.view_mut(&mut nll)), checked(cuda.view_mut(&mut kl)));
    let (mut z_view, mut y_view) = (checked(cuda.view_mut(&mut z)), checked(cuda.view_mut(&mut y)));
    cuda.cross_entropy_kl(
        nll_view.get(),
        kl_view.get(),
        z_view.get(),
        Some(y_view.get()),
        checked(cuda.view(&targets)).get(),
        checked(cuda.view(&mask)).get(),
        checked(cuda.view(&mask)).get(),
        HeadWeights { cross_entropy: 0.5, kl: 0.1 },
    );
    checked(cuda.finish());
}
