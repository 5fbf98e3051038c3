//! Attention with TMA and wgmma (sm_90a): the forward pass.

use half::bf16;

use crate::cuda::Cuda;
use crate::cuda::launch::{Launch, PackedHeads, Shape, VECTOR};
use crate::cuda::params::{HeadShape, QkvMaps, Sequence, Sequences, TileShares};
use crate::cuda::tile::*;
use crate::ops::Mut;
use crate::ops::attention::{Heads, Qkv, Segment, reach};

/// Kernels, by the elements of a head that they have room for.
const KERNELS: [(usize, &str); 2] = [(64, "attention_64_sm90"), (128, "attention_128_sm90")];

/// What a tile of queries takes beside its tiles of keys, in as many of these: a softmax beside which nothing
/// runs, and the outputs. Estimated.
const TILE_COST: usize = 2;

/// The kernel for heads that suit it, with the elements of its heads: a consumer has rows for all of a group.
pub(super) fn kernel_for(cuda: &Cuda, heads: Heads) -> Option<(usize, &'static str)> {
    let suited = cuda.info().capability == 90 && heads.group() <= ATTENTION_SM90_ROWS;
    KERNELS.into_iter().find(|&(dim, _)| suited && heads.dim <= dim)
}

/// Queries of a consumer.
fn queries_of(heads: Heads) -> usize {
    ATTENTION_SM90_ROWS / heads.group()
}

/// Dynamic shared memory: queries and outputs of each consumer, stages of keys and values, and mbarriers for
/// what is full and what is empty: queries, and each stage of keys and of values.
fn shared(dim: usize) -> usize {
    let rows = 2 * ATTENTION_SM90_CONSUMERS * ATTENTION_SM90_ROWS;
    let keys = 2 * ATTENTION_SM90_STAGES * ATTENTION_SM90_KEYS;
    let barriers = 2 * (1 + 2 * ATTENTION_SM90_STAGES);
    (rows + keys) * dim * size_of::<bf16>() + barriers * size_of::<u64>()
}

/// What the tiles of a sequence cost, each of so many queries.
fn costs(sequence: &Sequence, queries: usize) -> impl Iterator<Item = usize> {
    let [len, prefix] = [sequence.len, sequence.prefix_len].map(|n| n as usize);
    let key_tiles = |keys: usize| keys.div_ceil(ATTENTION_SM90_KEYS);
    let cost = move |query| key_tiles(prefix) + key_tiles(len.min(query + queries)) + TILE_COST;
    (0..len).step_by(queries).map(cost)
}

/// Where the shares of blocks end if each takes the next tiles of all heads as long as they cost at most
/// `most`.
fn ends(costs: &[usize], heads: usize, most: usize) -> Vec<usize> {
    let (mut ends, mut cost) = (Vec::new(), 0);
    for (tile, of_tile) in std::iter::repeat_n(costs, heads).flatten().enumerate() {
        if cost + of_tile > most {
            ends.push(tile);
            cost = 0;
        }
        cost += of_tile;
    }
    ends.push(heads * costs.len());
    ends
}

/// Ends of at most `blocks` shares, the greatest of which costs as little as it can.
fn even_ends(costs: &[usize], heads: usize, blocks: usize) -> Vec<usize> {
    let greatest = costs.iter().copied().max().unwrap_or(0);
    let mean = (heads * costs.iter().sum::<usize>()).div_ceil(blocks);
    // All shares but the last cost more than the mean where each may cost a tile more.
    let (mut low, mut high) = (mean.max(greatest), mean + greatest);
    while low < high {
        let most = low.midpoint(high);
        if ends(costs, heads, most).len() <= blocks {
            high = most;
        } else {
            low = most + 1;
        }
    }
    ends(costs, heads, high)
}

impl TileShares {
    /// The tiles of `sequences`, of which each head has so many, and the number of blocks among which they
    /// are shared.
    fn new(sequences: &Sequences, of_head: usize, heads: Heads, cuda: &Cuda) -> (Self, usize) {
        let queries = queries_of(heads);
        let of_sequence = |sequence| costs(sequence, ATTENTION_SM90_CONSUMERS * queries);
        let costs: Vec<usize> = sequences.of.iter().flat_map(of_sequence).collect();
        let most = (cuda.info().multiprocessors as usize).clamp(1, ATTENTION_SM90_BLOCKS);
        let ends = even_ends(&costs, heads.key_value, most);
        let mut shares = TileShares { of_head: of_head as i32, queries: queries as i32, ..Self::default() };
        shares.end.iter_mut().zip(&ends).for_each(|(to, &end)| *to = end as i32);
        (shares, ends.len())
    }
}

/// Adds the tensor maps of what is read to a launch.
fn pass<'l>(qkv: &Qkv<'_, Cuda>, heads: Heads, mut launch: Launch<'l>) -> Launch<'l> {
    let mut maps = QkvMaps::default();
    let (queries, keys) = ((queries_of(heads), heads.group()), (ATTENTION_SM90_KEYS, 1));
    for (to, name, matrix, box_shape) in
        [(&mut maps.q, "q", qkv.q, queries), (&mut maps.k, "k", qkv.k, keys), (&mut maps.v, "v", qkv.v, keys)]
    {
        launch = launch.heads_map(to, name, &PackedHeads { matrix, dim: heads.dim, box_shape });
    }
    launch.value(maps)
}

impl Cuda {
    /// [`attention`](crate::ops::attention::Attention::attention) with the kernel of [`kernel_for`].
    pub(super) fn attention_sm90(
        &self,
        (dim, kernel): (usize, &'static str),
        (o, lse): (&Mut<'_, Self, bf16>, &Mut<'_, Self, f32>),
        qkv: &Qkv<'_, Self>,
        segments: &[Segment],
        heads: Heads,
    ) {
        for segments in segments.chunks(ATTENTION_SEQUENCES) {
            let of_tile = ATTENTION_SM90_CONSUMERS * queries_of(heads);
            let (sequences, tiles) = Sequences::new(segments, |len| len.div_ceil(of_tile));
            if tiles == 0 {
                continue;
            }
            let (shares, blocks) = TileShares::new(&sequences, tiles, heads, self);
            let (own, _) = reach(segments);
            let launch = self.launch(kernel).write("o", o, own * heads.q_width(), VECTOR);
            let launch = launch.write("lse", lse, own * heads.query, size_of::<f32>());
            let launch = pass(qkv, heads, launch).value(sequences).value(shares);
            launch.value(HeadShape::new(heads)).run(Shape {
                grid: (blocks, 1, 1),
                block: ATTENTION_SM90_THREADS,
                shared: shared(dim),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Costs of the shares that end so.
    fn shares(costs: &[usize], heads: usize, ends: &[usize]) -> Vec<usize> {
        let all: Vec<usize> = std::iter::repeat_n(costs, heads).flatten().copied().collect();
        let starts = std::iter::once(&0).chain(ends);
        starts.zip(ends).map(|(&start, &end)| all[start..end].iter().sum()).collect()
    }

    #[test]
    fn shares_are_even() {
        let costs = [5, 4, 3, 2, 1];
        let ends = even_ends(&costs, 2, 3);
        assert_eq!(shares(&costs, 2, &ends), [5 + 4, 3 + 2 + 1 + 5, 4 + 3 + 2 + 1]);
        // No share can cost less than the greatest tile, however many blocks there are.
        assert_eq!(even_ends(&costs, 1, 100), [1, 2, 4, 5]);
        assert_eq!(even_ends(&[7], 1, 1), [1]);
    }

    #[test]
    fn sequences_of_many_lengths_leave_no_block_with_much_more() {
        let sequence = |len, prefix_len| Sequence { len, prefix_len, ..Sequence::default() };
        let lengths = [(1024, 0), (600, 400), (432, 0), (200, 230), (97, 0), (52, 40), (0, 9)];
        let sequences = lengths.map(|(len, prefix)| sequence(len, prefix));
        let costs: Vec<usize> = sequences.iter().flat_map(|of| costs(of, 18)).collect();
        let (heads, blocks) = (16, 132);
        let ends = even_ends(&costs, heads, blocks);
        assert!(ends.len() <= blocks && ends.is_sorted() && ends.last() == Some(&(heads * costs.len())));
        let mean = heads * costs.iter().sum::<usize>() / blocks;
        let most = shares(&costs, heads, &ends).into_iter().max().expect("shares");
        assert!(most as f64 <= 1.1 * mean as f64, "{most} of {mean}");
    }
}
