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
