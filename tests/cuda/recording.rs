use deepguard::cuda::Cuda;
use deepguard::ops::loss::{HeadWeights, Loss};
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

/// What is copied from memory of the host beside other work is there after the join, however a recording
/// ends; and it is a branch, which a recording forks and joins.
#[test]
fn cuda_prefetches_are_there_after_the_join() {
    let _alone = alone();
    let cuda = own_cuda();
    let mut host: Buffer<Cuda, f32> = checked(Buffer::on_host(&cuda, 32));
    let (mut states, mut to, mut seen) = (buffer(&cuda, 32), buffer(&cuda, 32), buffer(&cuda, 32));
    let (x, weight) = (buffer::<<Cuda as Device>::Act>(&cuda, 32), buffer(&cuda, 16));
    let (mut y, mut rstd) = (buffer(&cuda, 32), buffer(&cuda, 2));
    let mut pass = |number: f32, seen: &mut Buffer<Cuda, f32>, ends: &dyn Fn()| {
        cuda.upload(states.view_mut(), &[number; 32]);
        cuda.offload(host.view_mut(), states.view());
        cuda.prefetch(to.first_mut(16), host.first(16));
        cuda.prefetch(to.slice_mut(16..32), host.slice(16..32));
        cuda.rms_norm(y.view_mut(), rstd.view_mut(), x.view(), weight.view(), 1e-5);
        ends();
        cuda.join_prefetches();
        cuda.copy(seen.view_mut(), to.view());
    };
    let waits = || cuda_emulator::load().and_then(|emulator| emulator.calls("cuStreamWaitEvent")).ok();
    let before = waits();
    cuda.graph("prefetch", || pass(1.0, &mut seen, &|| {}));
    assert!(before.zip(waits()).is_none_or(|(before, after)| after - before == 2), "a fork and a join");
    pass(2.0, &mut seen, &|| {});
    cuda.graph("prefetch", || pass(3.0, &mut seen, &|| drop(cuda.allocate(4))));
    cuda.graph("prefetch", || pass(4.0, &mut seen, &|| {}));
    checked(cuda.finish());
    assert_eq!(cuda.to_host(seen.view()), [4.0; 32]);
    for number in [5.0, 6.0, 7.0] {
        cuda.graph("prefetch", || {
            pass(number, &mut seen, &|| {
                if number == 6.0 {
                    drop(cuda.allocate(4))
                }
            })
        });
        assert_eq!(cuda.to_host(seen.view()), [number; 32]);
    }
}

/// Losses of rows so long that several blocks share one and wait for each other: what is recorded keeps it
/// that way.
#[test]
fn cuda_recordings_of_long_rows() {
    const VOCAB: usize = 42_003;
    let _alone = alone();
    let cuda = own_cuda();
    let losses = |rows: usize, record: bool| {
        let (mut z, mut y) = (buffer(&cuda, rows * VOCAB), buffer(&cuda, rows * VOCAB));
        let (mut nll, mut kl) = (buffer::<f32>(&cuda, rows), buffer::<f32>(&cuda, rows));
        let (mut targets, mut mask) = (buffer(&cuda, rows), buffer(&cuda, rows));
        let values = |times: usize| (0..rows * VOCAB).map(|i| (i * times % 13) as f32).collect::<Vec<f32>>();
        cuda.upload_act(z.view_mut(), &values(5));
        cuda.upload_act(y.view_mut(), &values(3));
        cuda.upload(targets.view_mut(), &vec![17i32; rows]);
        cuda.upload(mask.view_mut(), &vec![1f32; rows]);
        checked(cuda.finish());
        let mut work = || {
            let weights = HeadWeights { cross_entropy: 0.5, kl: 0.5 };
            let (nll, kl, z, y) = (nll.view_mut(), kl.view_mut(), z.view_mut(), Some(y.view_mut()));
            cuda.cross_entropy_kl(nll, kl, z, y, targets.view(), mask.view(), mask.view(), weights);
        };
        if record {
            cuda.graph("losses", work)
        } else {
            work()
        }
        checked(cuda.finish());
        (cuda.to_host(nll.view()), cuda.to_host(kl.view()), cuda.to_host(z.view()))
    };
    // The same graph again and again, with more and with fewer blocks.
    for rows in [3, 57, 1, 20] {
        let (expected, found) = (losses(rows, false), losses(rows, true));
        assert!(expected.0.iter().all(|nll| *nll > 0.0) && expected == found, "{rows} rows");
    }
}
