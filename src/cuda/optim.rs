//! AdamW and the gradient norm, as written in `ops/optim.rs`.

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::params::AdamWConstants;
use super::tile::{ELEMENT_THREADS, SUM_CHUNK, SUM_THREADS};
use crate::ops::optim::{AdamW, Optim};
use crate::ops::{Mut, Ref};

impl AdamWConstants {
    /// The constants of an update. They are derived in f64, as 1 − 0.999 has only four good digits in f32.
    fn new(s: AdamW) -> Self {
        AdamWConstants {
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            step: (s.lr / (1.0 - s.beta1.powi(s.t as i32))) as f32,
            root_correction: (1.0 / (1.0 - s.beta2.powi(s.t as i32)).sqrt()) as f32,
            beta1: s.beta1 as f32,
            beta2: s.beta2 as f32,
            gain1: (1.0 - s.beta1) as f32,
            gain2: (1.0 - s.beta2) as f32,
            eps: s.eps as f32,
            grad_scale: s.grad_scale as f32,
        }
    }
}

impl Optim for Cuda {
    fn adamw(
        &self,
        params: Mut<'_, Self, f32>,
        m: Mut<'_, Self, f32>,
        v: Mut<'_, Self, f32>,
        grads: Ref<'_, Self, f32>,
        step: AdamW,
    ) {
        let n = params.len();
        self.launch("adamw")
            .write("params", &params, n, VECTOR)
            .write("m", &m, n, VECTOR)
            .write("v", &v, n, VECTOR)
            .read("grads", grads, n, VECTOR)
            .value(n as u64)
            .value(AdamWConstants::new(step))
            .run(Shape::line(self.element_blocks(n, 4), ELEMENT_THREADS));
    }

    fn sum_of_squares(&self, sum: Mut<'_, Self, f64>, x: Ref<'_, Self, f32>) {
        let n = x.len();
        let blocks = n.div_ceil(SUM_CHUNK);
        let mut scratch = self.scratch();
        let Some(partial) = scratch.take::<f64>(self, blocks) else { return };
        self.launch("sum_of_squares")
            .write("partial", &partial, blocks, 8)
            .read("x", x, n, VECTOR)
            .value(n as u64)
            .run(Shape::line(blocks, SUM_THREADS));
        self.launch("sum_of_partials")
            .write("total", &sum, 1, 8)
            .read("partial", partial.view(), blocks, 8)
            .int("blocks", blocks)
            .run(Shape::line(1, SUM_THREADS));
    }
}
