//! Every operation against a plain f64 reference, on odd shapes, with outputs that hold NaN before; every
//! backward against central differences of that reference.
//!
//! The bodies run on any backend: another one is another line at the end of this file. CUDA runs on the
//! emulator.

#[path = "common/emulator.rs"]
mod emulator;
mod ops_families;

/// `mod family { #[test] fn operation() … }` for one backend.
macro_rules! tests_of {
    ($backend:expr; $($family:ident { $($test:ident),* })*) => {
        $(mod $family {
            $(#[test]
            fn $test() {
                crate::ops_families::$family::$test(&$backend.clone());
            })*
        })*
    };
}

macro_rules! test_backend {
    ($name:ident, $backend:expr) => {
        mod $name {
            tests_of! {
                $backend;
                aggregate { tap_mean, forward, backward }
                analyzer {
                    layer_norm_relu, layer_norm_relu_backward, bias_relu, score_and_backward
                }
                attention { forward, surroundings, many_sequences, backward, separate, decode }
                elementwise { add, scale_rows, cast }
                embedding { embed, gather, scatter_add, scatter_add_in_order }
                linear {
                    forward, backward, shapes, with_terms, lora_down, lora_down_of_many_rows, lora_backward,
                    lora_backward_shapes, lora_dropout
                }
                loss { cross_entropy_and_kl, cross_entropy_alone, long_rows, many_long_rows, equal_logits, extremes }
                matmul {
                    transpositions, overwrites, shapes, affine, affine_leaves_the_rest_alone, weighted_product, weight_gradient, bias_gradient,
                    affine_gradient, several_gradients, gradient_shapes
                }
                mlp { forward, gated, gated_many_rows, backward, gated_backward, extremes }
                norm { forward, backward }
                optim { adamw, sum_of_squares, exact_sums }
                prefix { place, backward }
                rope { forward, into_cache, backward }
                sample { adjust, guide, greedy, draws, draws_of_a_sort, drafts }
            }
        }
    };
}

test_backend!(cpu, deepguard::cpu::Cpu::new());
test_backend!(cuda, crate::emulator::cuda());

/// What is refused: on devices of their own, as an error is that of all operations since the last wait.
macro_rules! test_contracts {
    ($name:ident, $backend:expr) => {
        mod $name {
            tests_of! {
                $backend;
                contracts {
                    ids, heads, segments, matrices, cache, rotations, taps, logits, layers, products, scores, elements,
                    sums, prefixes
                }
            }
        }
    };
}

test_contracts!(cpu_refuses, deepguard::cpu::Cpu::new());
test_contracts!(cuda_refuses, crate::emulator::own_cuda());

/// CUDA once more, on another device: it has other instructions, and so other kernels.
#[test]
fn cuda_on_an_a100() {
    emulator::again_on_an_a100("cuda");
}
