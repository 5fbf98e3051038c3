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
    /// Those of tensor cores.
    pub products: usize,
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
fn of_listing(listing: &str) -> Vec<(String, Loops)> {
    let mut kernels = Vec::new();
    for section in listing.split("\n.text.").skip(1) {
        let (name, code) = section.split_once(':').expect("a name and a colon");
        kernels.push((name.to_owned(), of_kernel(code)));
    }
    kernels
}

fn of_kernel(code: &str) -> Loops {
    let (mut names, mut labels, mut jumps) = (Vec::new(), HashMap::new(), Vec::new());
    for line in code.lines() {
        if let Some(label) = line.strip_prefix('.').and_then(|line| line.strip_suffix(':')) {
            labels.insert(label, names.len());
        } else if let Some(name) = mnemonic(line) {
            if name.starts_with("BRA")
                && let Some(to) = line.split_once("`(.").and_then(|(_, rest)| rest.split_once(')'))
            {
                jumps.push((to.0, names.len()));
            }
            names.push(name);
        }
    }
    let mut loops: Vec<(usize, usize)> = jumps
        .into_iter()
        .filter_map(|(label, from)| labels.get(label).filter(|to| **to < from).map(|to| (*to, from)))
        .collect();
    // Innermost: those that hold no other. The last instruction of a kernel jumps to itself and is none.
    let all = loops.clone();
    loops.retain(|(start, end)| !all.iter().any(|(s, e)| (s, e) != (start, end) && start <= s && e <= end));
    let counted = |range: &[&str]| {
        let with = |names: &[&str]| {
            range.iter().filter(|name| names.iter().any(|begin| name.starts_with(begin))).count()
        };
        Loops { instructions: range.len(), same: with(&SAME), products: with(&["HMMA", "HGMMA"]) }
    };
    let mut sum = Loops::default();
    for (start, end) in loops {
        let one = counted(&names[start..=end]);
        if one.same > 0 {
            sum.instructions += one.instructions;
            sum.same += one.same;
            sum.products += one.products;
        }
    }
    if sum.same == 0 { counted(&names) } else { sum }
}

#[test]
fn loops_of_a_listing() {
    let listing = "\n.text.a:\n        /*0000*/ MOV R1 ;\n.L_x_1:\n        /*0010*/ @P0 LDG.E R1 ;\n.L_x_2:\n        \
                   /*0020*/ HMMA.16816 R1 ;\n        /*0030*/ IADD R1 ;\n        /*0040*/ @P1 BRA `(.L_x_2) ;\n        \
                   /*0050*/ @P0 BRA `(.L_x_1) ;\n        /*0060*/ EXIT ;\n.L_x_3:\n        /*0070*/ BRA `(.L_x_3);\n";
    let found = of_listing(listing);
    let [(name, loops)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((name.as_str(), loops.instructions, loops.same, loops.products), ("a", 3, 1, 1));
}
