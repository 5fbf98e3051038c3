//! Machine code of a kernel's loops.
//!
//! Tests run PTX, of which ptxas makes other instructions. What is one instruction in both (products, memory,
//! shuffles, special functions) is counted as it runs; how many more come with each of them is read here.

use std::collections::HashMap;
use std::sync::OnceLock;

use deepguard::cuda::images::{Code, IMAGES, Image};

use super::disassembly::{listing, mnemonic};

/// How the names of instructions begin that are one in PTX, too.
const SAME: [&str; 13] = [
    "HMMA", "HGMMA", "MUFU", "LDG", "STG", "LDS", "STS", "ATOM", "RED", "SHFL", "VOTE", "UTMALDG", "UTMASTG",
];

/// Instructions of a kernel's innermost loops, or of all of it where it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loops {
    pub instructions: usize,
    /// Those that are one in PTX, too.
    pub same: usize,
    /// What products of warpgroups do.
    pub warpgroup: Warpgroup,
}

/// Products of warpgroups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Warpgroup {
    pub flops: usize,
    /// That they read from shared memory: the second operand, and the first unless it is in registers.
    pub shared_bytes: usize,
}

impl Loops {
    fn plus(self, other: &Loops) -> Self {
        Loops {
            instructions: self.instructions + other.instructions,
            same: self.same + other.same,
            warpgroup: Warpgroup {
                flops: self.warpgroup.flops + other.warpgroup.flops,
                shared_bytes: self.warpgroup.shared_bytes + other.warpgroup.shared_bytes,
            },
        }
    }
}

impl Warpgroup {
    /// Of a line with an `HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24`, in which a first operand in
    /// registers has its number before the descriptor.
    fn of(line: &str) -> Self {
        let Some((_, rest)) = line.split_once("HGMMA.64x") else { return Self::default() };
        let mut sizes = rest.split(['x', '.']).map_while(|size| size.parse().ok());
        let (n, k): (usize, usize) = sizes.next().zip(sizes.next()).expect("a shape");
        let mut operands = rest.split_once(' ').expect("operands").1.split(',').map(str::trim);
        let in_registers = operands.nth(1).is_some_and(|operand| operand.starts_with('R'));
        let first = if in_registers { 0 } else { 64 };
        Warpgroup { flops: 2 * 64 * n * k, shared_bytes: 2 * k * (first + n) }
    }
}

/// The loops of all kernels for an architecture, by name. A process has one architecture.
pub fn loops(arch: &str) -> &'static HashMap<String, Loops> {
    static FOUND: OnceLock<HashMap<String, Loops>> = OnceLock::new();
    FOUND.get_or_init(|| read(arch))
}

fn read(arch: &str) -> HashMap<String, Loops> {
    let code = |image: &&Image| image.arch == arch && matches!(image.code, Code::Cubin(_));
    let images: Vec<_> = IMAGES.iter().filter(code).collect();
    assert!(!images.is_empty(), "no machine code for sm_{arch}: make toolkit, and leave DG_CUDA_ARCHS alone");
    images.iter().flat_map(|image| of_listing(&listing(image))).collect()
}

/// The kernels of a listing by nvdisasm.
pub fn of_listing(listing: &str) -> Vec<(String, Loops)> {
    let mut kernels = Vec::new();
    for section in listing.split("\n.text.").skip(1) {
        let (name, code) = section.split_once(':').expect("a name and a colon");
        kernels.push((name.to_owned(), of_kernel(code)));
    }
    kernels
}

fn of_kernel(code: &str) -> Loops {
    let (mut lines, mut labels, mut jumps) = (Vec::new(), HashMap::new(), Vec::new());
    for line in code.lines() {
        if let Some(label) = line.strip_prefix('.').and_then(|line| line.strip_suffix(':')) {
            labels.insert(label, lines.len());
        } else if let Some(name) = mnemonic(line) {
            if name.starts_with("BRA")
                && let Some(to) = line.split_once("`(.").and_then(|(_, rest)| rest.split_once(')'))
            {
                jumps.push((to.0, lines.len()));
            }
            lines.push((name, line));
        }
    }
    // Those that only wait, and the jump to itself at the end of a kernel, are none.
    let loops: Vec<(usize, usize, Loops)> = jumps
        .into_iter()
        .filter_map(|(label, from)| labels.get(label).filter(|to| **to < from).map(|to| (*to, from)))
        .map(|(start, end)| (start, end, counted(&lines[start..=end])))
        .filter(|(.., one)| one.same > 0)
        .collect();
    let holds = |(start, end): (usize, usize), (s, e): (usize, usize)| {
        (s, e) != (start, end) && start <= s && e <= end
    };
    let innermost =
        loops.iter().filter(|(s, e, _)| !loops.iter().any(|(start, end, _)| holds((*s, *e), (*start, *end))));
    let sum = innermost.fold(Loops::default(), |sum, (.., one)| sum.plus(one));
    if sum.same == 0 { counted(&lines) } else { sum }
}

fn counted(lines: &[(&str, &str)]) -> Loops {
    let with = |names: &[&str]| {
        lines.iter().filter(|(name, _)| names.iter().any(|begin| name.starts_with(begin))).count()
    };
    let mut warpgroup = Warpgroup::default();
    for (_, line) in lines {
        let one = Warpgroup::of(line);
        warpgroup.flops += one.flops;
        warpgroup.shared_bytes += one.shared_bytes;
    }
    Loops { instructions: lines.len(), same: with(&SAME), warpgroup }
}

#[test]
fn loops_of_a_listing() {
    let listing = "\n.text.a:\n        /*0000*/ MOV R1 ;\n.L_x_1:\n        /*0010*/ @P0 LDG.E R1 ;\n.L_x_2:\n        \
                   /*0020*/ HMMA.16816 R1 ;\n        /*0030*/ IADD R1 ;\n        /*0040*/ @P1 BRA `(.L_x_2) ;\n        \
                   /*0050*/ @P0 BRA `(.L_x_1) ;\n        /*0060*/ EXIT ;\n.L_x_3:\n        /*0070*/ BRA `(.L_x_3);\n";
    let found = of_listing(listing);
    let [(name, loops)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((name.as_str(), loops.instructions, loops.same), ("a", 3, 1));
}

/// A loop holds one that only waits; operands are in shared memory, or the first is in registers.
#[test]
fn products_of_warpgroups_in_a_listing() {
    let listing = "\n.text.a:\n.L_x_1:\n.L_x_2:\n        /*0010*/ SYNCS.PHASECHK R1 ;\n        /*0020*/ @!P0 BRA \
                   `(.L_x_2) ;\n        /*0030*/ HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24 ;\n        \
                   /*0040*/ HGMMA.64x128x16.F32.BF16 R88, R152, gdesc[UR12].tnspB, R88 ;\n        \
                   /*0050*/ @P0 BRA `(.L_x_1) ;\n        /*0060*/ EXIT ;\n";
    let found = of_listing(listing);
    let [(_, loops)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((loops.instructions, loops.same), (5, 2));
    let Warpgroup { flops, shared_bytes } = loops.warpgroup;
    assert_eq!((flops, shared_bytes), (2 * 64 * 384 * 16, 32 * (64 + 256) + 32 * 128));
}
