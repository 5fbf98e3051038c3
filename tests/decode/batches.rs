//! Many samples and prompts in one pass.

use deepguard::cpu::Cpu;
use deepguard::decode::{
    Decoder, FinishReason, GenerateOptions, Generated, Next, Request, Watcher, generate, generate_all,
};
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::sample::Sampling;
use deepguard::{Error, ErrorKind};

use super::{PROMPT, Setup, options};

/// Ends samples after some tokens, and keeps what came.
struct EndAfter<'a> {
    /// Tokens of a sample of a request, by its seed.
    length: &'a dyn Fn(u64, usize) -> usize,
    seeds: Vec<u64>,
    lengths: Vec<Vec<usize>>,
    finished: Vec<(usize, Generated)>,
}

impl Watcher for EndAfter<'_> {
    fn on_token(&mut self, request: usize, sample: usize, _: u32) -> Next {
        let length = &mut self.lengths[request][sample];
        *length += 1;
        if *length < (self.length)(self.seeds[request], sample) { Next::GoOn } else { Next::End }
    }

    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<(), Error> {
        self.finished.push((request, generated));
        Ok(())
    }
}

/// What becomes of requests in one batch, in their order.
pub fn batch(
    decoder: &Decoder<'_, Cpu>,
    requests: &[Request],
    options: &GenerateOptions,
    length: &dyn Fn(u64, usize) -> usize,
) -> Vec<Generated> {
    let seeds = requests.iter().map(|request| request.seed).collect();
    let lengths = vec![vec![0; options.num_samples]; requests.len()];
    let mut watcher = EndAfter { length, seeds, lengths, finished: Vec::new() };
    decoder.generate_all(requests, options, &mut watcher).unwrap();
    watcher.finished.sort_by_key(|(request, _)| *request);
    let numbers: Vec<usize> = watcher.finished.iter().map(|(request, _)| *request).collect();
    assert_eq!(numbers, (0..requests.len()).collect::<Vec<_>>());
    watcher.finished.into_iter().map(|(_, generated)| generated).collect()
}

/// Prompts of different lengths.
pub fn requests(count: usize) -> Vec<Request> {
    let token = |i: usize, at: usize| ((i * 131 + at * 37 + 5) % 290) as u32;
    let prompt = |i: usize| (0..3 + i * 5 % 17).map(|at| token(i, at)).collect();
    (0..count).map(|i| Request { prompt: prompt(i), seed: 1000 + i as u64 }).collect()
}

/// Between 1 and 17 tokens; 40 would be the limit.
pub fn varied(seed: u64, sample: usize) -> usize {
    1 + (seed as usize * 7 + sample * 5) % 17
}

#[test]
fn the_bits_of_a_sample_do_not_depend_on_its_batch() {
    for (architecture, guided, every, penalty) in
        [("llama", false, 0, 1.0), ("qwen2", true, 3, 1.3), ("llama", true, 0, 1.0)]
    {
        let setup = Setup::new(architecture, guided);
        let options = options().with(|o| {
            o.num_samples = 11;
            o.max_new_tokens = 40;
            o.sampling = Sampling::new(1.2, 0.95, 50, 3);
            o.guided = guided;
            o.rescore_every = every;
            o.repetition_penalty = Some(penalty);
        });
        let requests = requests(9);
        let all = batch(&setup.decoder(), &requests, &options, &varied);
        for (request, of_batch) in requests.iter().zip(&all) {
            let alone = batch(&setup.decoder(), std::slice::from_ref(request), &options, &varied);
            assert_eq!(&alone[0], of_batch, "{architecture}, seed {}", request.seed);
            for (number, sample) in of_batch.samples.iter().enumerate() {
                assert_eq!(sample.len(), varied(request.seed, number));
                assert_eq!(of_batch.finish_reasons[number], FinishReason::Stop);
            }
            // As many samples as there are, and until the end: the same tokens.
            let fewer = options.clone().with(|o| {
                o.num_samples = 3;
                o.sampling.seed = request.seed;
            });
            let whole =
                generate(&setup.model, setup.attached.as_ref(), &request.prompt, &fewer, &mut |_, _| true)
                    .unwrap();
            for (whole, sample) in whole.samples.iter().zip(&of_batch.samples) {
                assert!(whole.starts_with(sample), "{architecture}, seed {}", request.seed);
            }
        }
        let mut reversed = requests.clone();
        reversed.reverse();
        let mut turned = batch(&setup.decoder(), &reversed, &options, &varied);
        turned.reverse();
        assert_eq!(turned, all, "{architecture}");
        assert_ne!(all[0].samples, all[1].samples);
    }
}

/// Of however many there are to be, so many take the memory of so many.
#[test]
fn some_samples_are_those_of_all() {
    let setup = Setup::new("llama", true);
    let decoder = setup.decoder();
    let of = |num_samples| {
        options().with(|o| (o.num_samples, o.sampling) = (num_samples, Sampling::new(1.0, 1.0, 0, 3)))
    };
    let all = decoder.generate(&PROMPT, &of(9), &mut |_, _| true).unwrap();
    let some = decoder.generate_some(&PROMPT, &of(1 << 40), 4..7, &mut |_, _| true).unwrap();
    assert!(some.samples == all.samples[4..7] && all.samples[..3] != all.samples[4..7]);
}

#[test]
fn samples_of_a_batch_are_drawn_from_their_own_logits() {
    let setup = Setup::new("qwen2", true);
    let options = options().with(|o| {
        o.num_samples = 10;
        o.max_new_tokens = 12;
        o.sampling = Sampling::new(0.9, 0.95, 50, 1000);
        o.guided = true;
        o.repetition_penalty = Some(1.2);
    });
    let requests = [Request { prompt: PROMPT.to_vec(), seed: 1000 }, requests(2).remove(1)];
    let generated = batch(&setup.decoder(), &requests, &options, &varied);
    setup.check(&generated[0], &options);
}

#[test]
fn a_batch_ends_at_the_context_and_can_be_cancelled() {
    let mut setup = Setup::new("llama", false);
    setup.model.config.max_position_embeddings = 24;
    let options = options().with(|o| {
        o.num_samples = 2;
        o.max_new_tokens = 15;
        o.sampling = Sampling::new(1.0, 1.0, 0, 1);
    });
    let forever = |_: u64, _: usize| usize::MAX;
    for (request, generated) in
        requests(5).iter().zip(batch(&setup.decoder(), &requests(5), &options, &forever))
    {
        let room = 15.min(24 - request.prompt.len());
        assert!(generated.samples.iter().all(|sample| sample.len() == room));
        assert_eq!(generated.finish_reasons, [FinishReason::Length; 2]);
    }
    for prompt in [Vec::new(), vec![1; 24]] {
        let wrong = [requests(1).remove(0), Request { prompt, seed: 0 }];
        let mut watcher = Cancel { after: usize::MAX, finished: Vec::new() };
        let error = generate_all(&setup.model, None, &wrong, &options, &mut watcher).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(watcher.finished.is_empty());
    }
    let mut watcher = Cancel { after: 7, finished: Vec::new() };
    generate_all(&setup.model, None, &requests(5), &options, &mut watcher).unwrap();
    let tokens = |generated: &Generated| generated.samples.iter().map(Vec::len).sum::<usize>();
    assert_eq!(watcher.finished.iter().map(|(_, generated)| tokens(generated)).sum::<usize>(), 7);
    for (_, generated) in &watcher.finished {
        assert_eq!(generated.finish_reasons, [FinishReason::Cancelled; 2]);
    }
}

/// Notes whose tokens come.
#[derive(Default)]
struct Order(Vec<usize>);

impl Watcher for Order {
    fn on_token(&mut self, request: usize, _: usize, _: u32) -> Next {
        self.0.push(request);
        Next::GoOn
    }

    fn on_finished(&mut self, _: usize, _: Generated) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn prompts_of_one_sample_fill_the_rows_of_a_pass() {
    use deepguard::ops::Device;
    let setup = Setup::new("llama", false);
    let rows = Cpu::new().independent_rows();
    let (requests, options) = (requests(rows + 2), options().with(|o| o.max_new_tokens = 3));
    let mut order = Order::default();
    generate_all(&setup.model, None, &requests, &options, &mut order).unwrap();
    let all: Vec<usize> = (0..rows).collect();
    assert_eq!(order.0[..3 * rows], all.repeat(3));
    assert_eq!(order.0[3 * rows..], [rows, rows + 1].repeat(3));
    generate_all(&setup.model, None, &[], &options, &mut order).unwrap();
}

/// Ends everything with a token.
struct Cancel {
    after: usize,
    finished: Vec<(usize, Generated)>,
}

impl Watcher for Cancel {
    fn on_token(&mut self, _: usize, _: usize, _: u32) -> Next {
        self.after -= 1;
        if self.after == 0 { Next::Cancel } else { Next::GoOn }
    }

    fn on_finished(&mut self, request: usize, generated: Generated) -> Result<(), Error> {
        self.finished.push((request, generated));
        Ok(())
    }
}

/// What the rows of a batch rest on: in products of decoding, up to so many rows, no row's bits depend on how
/// many there are. Weights and keys have contiguous rows; values are read across theirs.
#[test]
fn rows_of_small_products_are_independent() {
    use deepguard::cpu::blas::{MatMut, MatRef, gemm};
    use deepguard::ops::Device;
    let most = Cpu::new().independent_rows();
    assert!(most >= 16, "{most}");
    let numbers = |n: usize, seed: u64| -> Vec<f32> {
        (0..n).map(|i| unit(philox(seed, [i as u32, 0, 0, 0])[0]) - 0.5).collect()
    };
    for (depth, cols) in [(576, 192), (64, 201), (201, 64), (1536, 96), (40, 80), (333, 128)] {
        let (a, b) = (numbers(most * depth, 1), numbers(depth * cols, 2));
        for across in [false, true] {
            let product = |first: usize, rows: usize| {
                let mut c = vec![0.0; rows * cols];
                let a = MatRef::new(&a[first * depth..][..rows * depth], rows, depth);
                let b = if across {
                    MatRef::new(&b[..], depth, cols)
                } else {
                    MatRef::new(&b[..], cols, depth).t()
                };
                gemm(MatMut::new(&mut c, rows, cols), a, b, 1.0, 0.0);
                c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone: Vec<_> = (0..most).map(|row| product(row, 1)).collect();
            for rows in 1..=most {
                assert_eq!(product(0, rows), alone[..rows].concat(), "{rows} × {depth} × {cols}, {across}");
            }
        }
    }
}
