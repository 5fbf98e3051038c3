//! Decoding's blocks decide among themselves who combines their results: whoever does, the result is the
//! same. So is that of the forward pass, however its warps take turns.

use deepguard::cuda::Cuda;
use deepguard::ops::attention::{Attention, CachedKv, Heads, Qkv, Segment};
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::{Arena, Buffer, Device};
use half::bf16;

use crate::emulator::{checked, own_cuda};

fn random(cuda: &Cuda, len: usize) -> Buffer<Cuda, bf16> {
    let values: Vec<f32> =
        (0..len as u32).map(|i| 4.0 * unit(philox(8, [i, len as u32, 0, 0])[0]) - 2.0).collect();
    let (mut buffer, _) = Arena::build(cuda, |arena| arena.buffer("test", &[len])).expect("memory");
    cuda.upload_act(buffer.view_mut(), &values);
    buffer
}

#[test]
fn decoding_does_not_depend_on_the_order_of_blocks() {
    let (cuda, emulator) = (own_cuda(), cuda_emulator::load().expect("the emulator"));
    let (heads, prompt, filled) = (Heads { query: 6, key_value: 2, dim: 16 }, 300, 150);
    for samples in [1, 25] {
        let kv = heads.kv_width();
        let qkv = random(&cuda, samples * heads.qkv_width());
        let [prompt_k, prompt_v] = [(); 2].map(|()| random(&cuda, prompt * kv));
        let [sample_k, sample_v] = [(); 2].map(|()| random(&cuda, samples * filled * kv));
        let mut of_samples = checked(Arena::build(&cuda, |arena| arena.buffer("test", &[1]))).0;
        cuda.upload(of_samples.view_mut(), &[filled as u32]);
        let once = |seed| {
            emulator.set_seed(seed).expect("a seed");
            let mut o = random(&cuda, samples * heads.q_width());
            let cache = CachedKv {
                prompt_k: prompt_k.view(),
                prompt_v: prompt_v.view(),
                sample_k: sample_k.view(),
                sample_v: sample_v.view(),
                filled: of_samples.view(),
            };
            cuda.attention_decode(o.view_mut(), Qkv::packed(qkv.view(), heads).q, &cache, heads);
            checked(cuda.finish());
            cuda.download_act(o.view())
        };
        let first = once(0);
        assert!((1..12).all(|seed| once(seed) == first), "{samples} samples");
    }
}

#[test]
fn the_forward_pass_does_not_depend_on_the_order_of_warps() {
    let (cuda, emulator) = (own_cuda(), cuda_emulator::load().expect("the emulator"));
    let (heads, rows) = (Heads { query: 6, key_value: 2, dim: 72 }, 400);
    let segments = [
        Segment { start: 0, len: 330, prefix_start: 0, prefix_len: 0 },
        Segment { start: 330, len: 70, prefix_start: 0, prefix_len: 200 },
    ];
    let qkv = random(&cuda, rows * heads.qkv_width());
    let once = |seed| {
        emulator.set_seed(seed).expect("a seed");
        let mut o = random(&cuda, rows * heads.q_width());
        let mut lse = checked(Arena::build(&cuda, |arena| arena.buffer("lse", &[rows * heads.query]))).0;
        cuda.attention(o.view_mut(), lse.view_mut(), Qkv::packed(qkv.view(), heads), &segments, heads);
        checked(cuda.finish());
        (cuda.download_act(o.view()), cuda.to_host(lse.view()))
    };
    let first = once(0);
    assert!((1..4).all(|seed| once(seed) == first));
}
