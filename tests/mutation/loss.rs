//! Losses of long rows: the blocks of a group hand their sums to each other, row after row.

use cuda_emulator::machine::Profile;
use deepguard::cuda::tile::*;

use super::edit::{instead, remove, swap};
use super::harness::{Case, Expected, Setup, bytes, mutant};
use super::inputs::{bf16s, integers, ptx};

const WIDTH: usize = 203;
const CROSS_ENTROPY: f32 = 0.25;
const KL_WEIGHT: f32 = 0.5;
/// Rows with both losses, one, the other, and none.
const TARGETS: [i32; 6] = [202, 7, -1, 3, -1, 100];
const W_KL: [f32; 6] = [1.0, 0.0, 0.0, 0.5, 1.0, -1.0];
const W_CE: [f32; 6] = [1.0, -2.0, 1.0, 0.5, 1.0, 1.0];

pub fn cases() -> Vec<Case> {
    vec![cross_entropy_kl_group()]
}

fn log_sum_exp(x: &[f64]) -> f64 {
    x.iter().map(|x| x.exp()).sum::<f64>().ln()
}

/// Groups of so many blocks, each of which keeps `kept` vectors of its part of a row.
fn setup(groups: usize, ranks: usize, kept: usize) -> Setup {
    let rows = TARGETS.len();
    let (z, y) = (integers(rows * WIDTH, 41, 5), integers(rows * WIDTH, 42, 6));
    let (mut nll, mut kl, mut dz) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let of_row =
            |x: &[i32]| x[row * WIDTH..][..WIDTH].iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (z, y) = (of_row(&z), of_row(&y));
        let (lse_z, lse_y) = (log_sum_exp(&z), log_sum_exp(&y));
        let target = usize::try_from(TARGETS[row]).ok();
        let z_weight = target.map_or(0.0, |_| f64::from(CROSS_ENTROPY * W_CE[row]));
        let y_weight = f64::from(KL_WEIGHT * W_KL[row]);
        let mask = if W_KL[row] == 0.0 { 0.0 } else { 1.0 };
        nll.push(target.map_or(0.0, |target| lse_z - z[target]));
        let divergence = |(z, y): (&f64, &f64)| (y - lse_y).exp() * ((y - lse_y) - (z - lse_z));
        kl.push(mask * z.iter().zip(&y).map(divergence).sum::<f64>());
        dz.extend((0..WIDTH).map(|i| {
            let hit = if Some(i) == target { z_weight } else { 0.0 };
            (z_weight + y_weight) * (z[i] - lse_z).exp() - y_weight * (y[i] - lse_y).exp() - hit
        }));
    }
    let mut setup = Setup::new([(groups * ranks) as u32, 1], LOSS_THREADS)
        .shared(kept * 32)
        .output("nll", Expected::F32(nll, 1e-4))
        .output("kl", Expected::F32(kl, 1e-4))
        .update("z", bytes(&bf16s(&z)), Expected::Bf16(dz, 1.0 / 64.0))
        .input("y", &bf16s(&y))
        .input("targets", &TARGETS)
        .input("w_ce", &W_CE)
        .input("w_kl", &W_KL)
        .value(0u64) // nothing is refused
        .scratch("sums", groups * 2 * ranks * LOSS_SUMS * 4)
        .update("arrived", bytes(&vec![0u32; groups]), Expected::Exactly(bytes(&vec![0u32; groups])))
        .value(CROSS_ENTROPY)
        .value(KL_WEIGHT)
        .value(rows as i32)
        .value(WIDTH as i32)
        .value(kept as i32)
        .value(ranks as i32);
    setup.cooperative = true;
    setup
}

fn cross_entropy_kl_group() -> Case {
    let mutants = vec![
        mutant(
            "the arrival releases nothing",
            [swap("red.release", &[], ".release", ".relaxed")],
            "What the block has written before need not be there.",
        ),
        mutant(
            "the arrival releases to the own block",
            [swap("red.release", &[], ".gpu", ".cta")],
            "What the block has written before need not be there for others.",
        ),
        mutant(
            "the wait acquires nothing",
            [swap("ld.acquire", &[], ".acquire", ".relaxed")],
            "What other blocks have written need not be there.",
        ),
        mutant(
            "nobody waits for the others",
            [instead("ld.acquire", &[], "mov.u32 $0, -1;")],
            "They may not have written.",
        ),
        mutant("blocks do not arrive", [swap("red.release", &[], ", 1;", ", 0;")], "Nobody is counted."),
        mutant(
            "a block arrives twice",
            [swap("red.release", &[], ", 1;", ", 2;")],
            "Others go on before all have written.",
        ),
        mutant(
            "blocks do not count themselves at the end",
            [remove("atom.global.inc", &[])],
            "The next launch finds a counter that is not 0.",
        ),
        mutant(
            "one set of sums",
            [swap("and.b32", &[12, 13, 33, 34], ", 1;", ", 0;")],
            "A block writes its sums of the next row while others read those of this one.",
        ),
        mutant(
            "nobody waits for the group's sums",
            [remove("bar.sync", &[2, 5])],
            "Warps read them before they are there.",
        ),
        mutant(
            "the first warp does not wait for the others",
            [remove("bar.sync", &[0, 3])],
            "It reads what they are writing.",
        ),
    ];
    Case {
        kernel: "cross_entropy_kl_group",
        ptx: ptx("loss", "80"),
        profile: Profile::A100,
        // Several rows to a group; parts that do not fit; more blocks than lanes, some without any part.
        setups: vec![setup(2, 3, 9), setup(1, 2, 5), setup(1, 34, 1)],
        mutants,
    }
}
