//! Sampled execution: of each launch some blocks run, and are counted. So it is known what kernels do at
//! sizes at which nothing can be emulated as a whole. What they compute is not.

use std::collections::HashMap;

use super::abi::{Out, Text};
use super::status::{Result, Status};
use super::work::Kernel;
use super::{api, with_driver};
use crate::counters::Counters;
use crate::memory::global::GlobalMemory;

/// What is sampled, and what was launched since.
#[derive(Default)]
pub struct Sample {
    /// Clusters (of a block, where there are no others) of a launch that run, of kernels whose names begin
    /// so. The first that fits counts.
    clusters: Vec<(String, u64)>,
    launches: Vec<(String, Launched)>,
    /// What launches did, also earlier, by all but the addresses among their arguments.
    known: HashMap<Alike, Counters>,
    /// What launches did that ran as a whole, since sampling began: others need what they wrote.
    whole: HashMap<Alike, Counters>,
}

/// A kernel, its grid, and its arguments with zeros in the place of addresses.
type Alike = (String, [u32; 3], Vec<u8>);

/// A launch, of which some blocks ran.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Launched {
    /// Blocks in all.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u64,
    /// Bytes of shared memory of a block.
    pub shared: u64,
    /// Blocks of a cluster.
    pub cluster: u64,
    /// Bytes of the allocations whose first address is among the arguments: of weights, which have theirs to
    /// themselves.
    pub held: u64,
    /// Of the blocks that ran.
    pub counters: Counters,
}

impl Sample {
    /// What a launch did that was like this one but for addresses.
    pub fn known(&self, kernel: &Kernel, memory: &GlobalMemory) -> Option<Counters> {
        let alike = alike(kernel, memory);
        self.known.get(&alike).or_else(|| self.whole.get(&alike)).copied()
    }

    /// Clusters of a kernel that run.
    pub fn most_clusters(&self, kernel: &str) -> u64 {
        let found = self.clusters.iter().find(|(begin, _)| kernel.starts_with(begin));
        found.map_or(u64::MAX, |(_, clusters)| *clusters)
    }

    /// Remembers a launch.
    pub fn note(&mut self, kernel: &Kernel, memory: &GlobalMemory, counters: Counters) {
        let mut held: Vec<(u64, u64)> = addresses(&kernel.launch.params)
            .filter_map(|address| memory.find(address, 1).ok().filter(|found| found.base() == address))
            .map(|found| (found.base(), found.len()))
            .collect();
        held.sort_unstable();
        held.dedup();
        let known = match self.most_clusters(&kernel.function.name) {
            0 => None,
            u64::MAX => Some(&mut self.whole),
            _ => Some(&mut self.known),
        };
        if let Some(known) = known {
            known.insert(alike(kernel, memory), counters);
        }
        let launch = &kernel.launch;
        let product = |dims: [u32; 3]| dims.iter().map(|&n| u64::from(n)).product();
        let launched = Launched {
            blocks: product(launch.grid),
            threads: product(launch.block),
            shared: u64::from(kernel.function.static_shared) + u64::from(launch.dynamic_shared),
            cluster: product(launch.cluster),
            held: held.into_iter().map(|(_, len)| len).sum(),
            counters,
        };
        self.launches.push((kernel.function.name.clone(), launched));
    }
}

/// Words among arguments, which addresses are.
fn addresses(arguments: &[u8]) -> impl Iterator<Item = u64> {
    arguments
        .chunks_exact(8)
        .map(|word| word.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn alike(kernel: &Kernel, memory: &GlobalMemory) -> Alike {
    let mut arguments = kernel.launch.params.clone();
    for (word, value) in arguments.chunks_exact_mut(8).zip(addresses(&kernel.launch.params)) {
        if memory.find(value, 1).is_ok() {
            word.fill(0);
        }
    }
    (kernel.function.name.clone(), kernel.launch.grid, arguments)
}

api! {
    /// From here on at most so many clusters of each launch run as `clusters` says, `attention=8,gemm=2,=4`,
    /// by how the kernel's name begins; new memory is of `total` bytes, and all of it counts as written.
    fn dgemu_sample(clusters: Text, total: u64) {
        let entry = |entry: &str| {
            let (begin, clusters) = entry.split_once('=').ok_or(Status::INVALID_VALUE)?;
            Ok((begin.to_owned(), clusters.parse().map_err(|_| Status::INVALID_VALUE)?))
        };
        let clusters = clusters.get()?.split(',').map(entry).collect::<Result<_>>()?;
        with_driver(|driver| {
            driver.machine.memory.stop_tracking(total);
            driver.sample = Some(Sample {
                clusters,
                launches: Vec::new(),
                whole: HashMap::new(),
                known: driver.sample.take().map(|earlier| earlier.known).unwrap_or_default(),
            });
            Ok(())
        })
    }

    /// The launch of this number since sampling began: bytes of its name and of a terminator, and what it
    /// was. Not found behind the last.
    fn dgemu_launched(number: usize, name: Out<std::ffi::c_char>, len: usize, out: Out<Launched>) {
        with_driver(|driver| {
            let launches = driver.sample.as_ref().map_or(&[][..], |sample| &sample.launches);
            let (kernel, launched) = launches.get(number).ok_or(Status::NOT_FOUND)?;
            let bytes = kernel.bytes().take(len.saturating_sub(1)).chain([0]);
            name.set_all(bytes.map(|byte| byte as std::ffi::c_char))?;
            out.set(*launched)
        })
    }
}
