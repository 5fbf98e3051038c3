//! AdamW, the gradient norm and exact sums, as written in `ops/optim.rs`.

use super::Cuda;
use super::launch::{Shape, VECTOR};
use super::params::AdamWConstants;
use super::tile::{ELEMENT_THREADS, SUM_CHUNK, SUM_THREADS};
use crate::ops::optim::{AdamW, EXACT_SCALE, Optim, check_exact_add, check_exact_take, exact_limit};
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

    fn exact_add(&self, sums: Mut<'_, Self, i64>, x: Mut<'_, Self, f32>, addends: usize) {
        let n = x.len();
        if self.keep(check_exact_add(sums.len(), n, addends)).is_none() {
            return;
        }
        self.launch("exact_add")
            .write("sums", &sums, n + 1, VECTOR)
            .write("x", &x, n, VECTOR)
            .value(n as u64)
            .value(EXACT_SCALE)
            .value(exact_limit(addends))
            .run(Shape::line(self.element_blocks(n, 2), ELEMENT_THREADS));
    }

    fn exact_take(&self, x: Mut<'_, Self, f32>, sums: Ref<'_, Self, i64>) {
        let n = x.len();
        if self.keep(check_exact_take(n, sums.len())).is_none() {
            return;
        }
        self.launch("exact_take")
            .write("x", &x, n, VECTOR)
            .read("sums", sums, n + 1, VECTOR)
            .value(n as u64)
            .value(1.0 / EXACT_SCALE)
            .run(Shape::line(self.element_blocks(n, 2), ELEMENT_THREADS));
    }
}
