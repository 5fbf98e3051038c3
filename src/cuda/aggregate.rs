//! The aggregator's passes over the taps, as written in `ops/aggregate.rs`. Computed in f32, rounded once.

use half::bf16;

use super::Cuda;
use super::launch::Shape;
use super::rows::{alignment, threads};
use super::tile::AGGREGATE_TAPS;
use crate::error::Error;
use crate::ops::aggregate::{Aggregate, TapGradient, TapShape};
use crate::ops::{Mut, Ref};

/// Static shared memory of the kernels, for sums over a block.
const SUMS: usize = AGGREGATE_TAPS * 32 * size_of::<f32>();

impl Cuda {
    /// Launch shape of a pass that reads the taps twice, and whether a row of taps fits shared memory.
    fn pass(&self, shape: TapShape) -> (Shape, i32) {
        let bytes = shape.taps * shape.hidden_size * size_of::<bf16>();
        let fits = bytes + SUMS <= self.info().shared_memory;
        let shared = if fits { bytes } else { 0 };
        let line = Shape::line(shape.rows, threads(shape.hidden_size));
        (Shape { shared, ..line }, i32::from(fits))
    }

    /// Whether the kernels take such taps; the failure is kept where they do not.
    fn takes(&self, op: &str, shape: TapShape) -> bool {
        let room = || match shape.taps <= AGGREGATE_TAPS {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "the guard reads {} layers; on CUDA it can read at most {AGGREGATE_TAPS}: train with fewer `guard_layers`, or on \
                  the CPU",
                shape.taps
            ))),
        };
        self.keep(shape.check(op).and_then(|()| room())).is_some()
    }
}

impl Aggregate for Cuda {
    fn tap_mean(&self, mean: Mut<'_, Self, bf16>, taps: Ref<'_, Self, bf16>, shape: TapShape) {
        if !self.takes("tap_mean", shape) {
            return;
        }
        let (width, n) = (shape.hidden_size, shape.rows * shape.hidden_size);
        self.launch("tap_mean")
            .write("mean", &mean, n, alignment(width))
            .read("taps", taps, shape.taps * n, alignment(width))
            .int("taps", shape.taps)
            .int("width", width)
            .run(Shape::line(shape.rows, threads(width)));
    }

    fn aggregate(
        &self,
        context: Mut<'_, Self, bf16>,
        weights: Mut<'_, Self, f32>,
        taps: Ref<'_, Self, bf16>,
        u: Ref<'_, Self, bf16>,
        shape: TapShape,
    ) {
        if !self.takes("aggregate", shape) {
            return;
        }
        let (width, n) = (shape.hidden_size, shape.rows * shape.hidden_size);
        let (pass, keep) = self.pass(shape);
        self.launch("aggregate")
            .write("context", &context, n, alignment(width))
            .write("weights", &weights, shape.rows * shape.taps, 4)
            .read("taps", taps, shape.taps * n, alignment(width))
            .read("u", u, n, alignment(width))
            .int("taps", shape.taps)
            .int("width", width)
            .value(keep)
            .run(pass);
    }

    fn aggregate_backward(
        &self,
        du: Mut<'_, Self, bf16>,
        dscores: Mut<'_, Self, f32>,
        dcontext: Ref<'_, Self, bf16>,
        taps: Ref<'_, Self, bf16>,
        weights: Ref<'_, Self, f32>,
        shape: TapShape,
    ) {
        if !self.takes("aggregate_backward", shape) {
            return;
        }
        let (width, n) = (shape.hidden_size, shape.rows * shape.hidden_size);
        let (pass, keep) = self.pass(shape);
        self.launch("aggregate_backward")
            .write("du", &du, n, alignment(width))
            .write("dscores", &dscores, shape.rows * shape.taps, 4)
            .read("dcontext", dcontext, n, alignment(width))
            .read("taps", taps, shape.taps * n, alignment(width))
            .read("weights", weights, shape.rows * shape.taps, 4)
            .int("taps", shape.taps)
            .int("width", width)
            .value(keep)
            .run(pass);
    }

    fn tap_gradient(
        &self,
        dtaps: Mut<'_, Self, bf16>,
        dtap_rows: usize,
        args: TapGradient<'_, Self>,
        shape: TapShape,
    ) {
        if !self.takes("tap_gradient", TapShape { rows: dtap_rows, ..shape }) {
            return;
        }
        let (width, n) = (shape.hidden_size, dtap_rows * shape.hidden_size);
        self.launch("tap_gradient")
            .write("dtaps", &dtaps, shape.taps * n, alignment(width))
            .read("dcontext", args.dcontext, n, alignment(width))
            .read("u", args.u, n, alignment(width))
            .read("dmean", args.dmean, n, alignment(width))
            .read("weights", args.weights, dtap_rows * shape.taps, 4)
            .read("dscores", args.dscores, dtap_rows * shape.taps, 4)
            .read("row_weight", args.row_weight, dtap_rows, 4)
            .int("taps", shape.taps)
            .int("width", width)
            .run(Shape::line(dtap_rows, threads(width)));
    }
}
