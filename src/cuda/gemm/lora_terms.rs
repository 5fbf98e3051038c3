//! The LoRA terms of a product, an extension of its k.

use half::bf16;

use super::operand::alignment;
use crate::cuda::launch::Launch;
use crate::cuda::tile::GEMM_LORA_TERMS;
use crate::cuda::{Cuda, params};
use crate::error::Error;
use crate::ops::linear::LoraTerm;
use crate::ops::matrix::Matrix;

/// xa, lora_B and the first column of a term.
pub(in crate::cuda) type TermParts<'a> = (Matrix<'a, Cuda, bf16>, Matrix<'a, Cuda, bf16>, usize);

/// The LoRA terms of a product as a kernel takes them.
pub(in crate::cuda) struct Terms<'a> {
    terms: &'a [LoraTerm<'a, Cuda>],
}

impl<'a> Terms<'a> {
    /// `None`, with the failure kept, for more terms than a kernel takes.
    pub fn new(cuda: &Cuda, terms: &'a [LoraTerm<'a, Cuda>]) -> Option<Self> {
        cuda.takes_adapters(terms.len()).then_some(Terms { terms })
    }

    /// xa, lora_B and the first column of each term.
    pub fn each(&self) -> impl Iterator<Item = TermParts<'a>> {
        self.terms.iter().map(|term| {
            let rows = term.xa.len() / term.rank.max(1);
            let xa = Matrix::new(term.xa, rows, term.rank);
            (xa, Matrix::new(term.b, term.out_features, term.rank), term.column)
        })
    }

    /// Adds the terms to a launch.
    pub fn pass<'l>(terms: Option<&Terms<'_>>, mut launch: Launch<'l>) -> Launch<'l> {
        let mut by_value = params::LoraTerms::default();
        for (to, (xa, b, column)) in by_value.term.iter_mut().zip(terms.iter().flat_map(|terms| terms.each()))
        {
            let vector = xa.in_vectors() && b.in_vectors();
            launch = launch.reads(&mut to.xa, "xa", xa.data, xa.extent(), alignment(vector));
            launch = launch.reads(&mut to.b, "lora_B", b.data, b.extent(), alignment(vector));
            *to = params::LoraTerm {
                rows: xa.rows as i32,
                column: column as i32,
                columns: b.rows as i32,
                rank: b.cols as i32,
                vector: vector.into(),
                ..*to
            };
            by_value.count += 1;
        }
        launch.value(by_value)
    }
}

impl Cuda {
    /// Whether kernels take so many adapters of a layer; the failure is kept where they do not.
    pub(in crate::cuda) fn takes_adapters(&self, count: usize) -> bool {
        if count > GEMM_LORA_TERMS {
            let expected = format!("expected up to {GEMM_LORA_TERMS}");
            self.fail(Error::internal(format!("a linear layer with {count} adapters, {expected}")));
        }
        count <= GEMM_LORA_TERMS
    }
}
