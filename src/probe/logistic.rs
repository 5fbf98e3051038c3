//! Logistic regression with an L2 penalty, by L-BFGS (Nocedal & Wright, *Numerical Optimization*, algorithms
//! 3.1 and 7.4).

use std::collections::VecDeque;

use super::standard::Standard;

/// Steps remembered of the curvature.
const MEMORY: usize = 10;
/// Steps at most.
const STEPS: usize = 200;
/// The gradient's length, as a share of its first, at which the search ends.
const TOLERANCE: f64 = 1e-4;
/// A step has to bring this share of what the slope promises.
const SUFFICIENT: f64 = 1e-4;
/// Halvings of a step at most; after them, rounding decides.
const HALVINGS: usize = 20;

/// Functions and what they are. Their states are read where they lie: on a large model, copies on another
/// scale would take as much memory for every thread as a whole layer.
#[derive(Clone, Copy)]
pub(super) struct Examples<'a> {
    /// The states.
    pub rows: &'a [&'a [f32]],
    /// 1 for a secure function, −1 for a vulnerable one.
    pub labels: &'a [f64],
    /// The scale on which they are looked at.
    pub standard: &'a Standard,
}

/// A plane: features → log-odds.
pub(super) struct Classifier<'a> {
    /// A weight per feature on the scale, then the bias.
    theta: Vec<f64>,
    standard: &'a Standard,
}

impl<'a> Classifier<'a> {
    /// Minimises the mean cross-entropy plus `penalty / 2 · |w|²`; the bias has no penalty.
    pub fn fit(examples: Examples<'a>, penalty: f64) -> Self {
        let problem = Problem { examples, penalty };
        let start = vec![0.0; examples.standard.mean.len() + 1];
        Classifier { theta: minimise(&problem, start), standard: examples.standard }
    }

    /// Log-odds of the label 1.
    pub fn logit(&self, row: &[f32]) -> f64 {
        let (bias, weights) = self.theta.split_last().unwrap_or((&0.0, &[]));
        f64::from(self.standard.dot(row, &self.standard.weights(weights))) + bias
    }

    /// Mean cross-entropy.
    pub fn loss(&self, rows: &[&[f32]], labels: &[f64]) -> f64 {
        let examples = Examples { rows, labels, standard: self.standard };
        Problem { examples, penalty: 0.0 }.value_and_gradient(&self.theta).0
    }
}

/// What is minimised.
struct Problem<'a> {
    examples: Examples<'a>,
    penalty: f64,
}

impl Problem<'_> {
    fn value_and_gradient(&self, theta: &[f64]) -> (f64, Vec<f64>) {
        let Examples { rows, labels, standard } = self.examples;
        let width = theta.len() - 1;
        let (weights, bias) = (&theta[..width], theta[width]);
        let on_states = standard.weights(weights);
        let count = labels.len().max(1) as f64;
        let (mut value, mut by_row, mut by_bias) = (0.0, vec![0.0f32; width], 0.0);
        for (row, label) in rows.iter().zip(labels) {
            let margin = label * (f64::from(standard.dot(row, &on_states)) + bias);
            value += softplus(-margin);
            let slope = -label / (1.0 + margin.exp());
            by_bias += slope;
            standard.add(slope as f32, row, &mut by_row);
        }
        let norm: f64 = weights.iter().map(|w| w * w).sum();
        let by_weight =
            by_row.iter().zip(&standard.scale).map(|(&sum, &scale)| f64::from(sum * scale) / count);
        let mut gradient: Vec<f64> = by_weight.zip(weights).map(|(sum, w)| sum + self.penalty * w).collect();
        gradient.push(by_bias / count);
        (value / count + 0.5 * self.penalty * norm, gradient)
    }
}

/// `ln(1 + eˣ)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn minimise(problem: &Problem<'_>, mut theta: Vec<f64>) -> Vec<f64> {
    let (mut value, mut gradient) = problem.value_and_gradient(&theta);
    let enough = TOLERANCE * inner(&gradient, &gradient).sqrt();
    let mut curvature = Curvature::default();
    for _ in 0..STEPS {
        if inner(&gradient, &gradient).sqrt() <= enough {
            break;
        }
        let direction = curvature.direction(&gradient);
        let Some((next, next_value, next_gradient)) = search(problem, &theta, value, &gradient, &direction)
        else {
            break;
        };
        curvature.remember(difference(&next, &theta), difference(&next_gradient, &gradient));
        (theta, value, gradient) = (next, next_value, next_gradient);
    }
    theta
}

/// The first step along `direction`, of length 1 and halved, that brings enough.
fn search(
    problem: &Problem<'_>,
    theta: &[f64],
    value: f64,
    gradient: &[f64],
    direction: &[f64],
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let slope = inner(gradient, direction);
    (0..HALVINGS).find_map(|halvings| {
        let length = 0.5f64.powi(halvings as i32);
        let next: Vec<f64> = theta.iter().zip(direction).map(|(t, d)| t + length * d).collect();
        let (next_value, next_gradient) = problem.value_and_gradient(&next);
        (next_value <= value + SUFFICIENT * length * slope).then_some((next, next_value, next_gradient))
    })
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

/// The last steps and how the gradient changed on each.
#[derive(Default)]
struct Curvature {
    steps: VecDeque<(Vec<f64>, Vec<f64>)>,
}

impl Curvature {
    fn remember(&mut self, step: Vec<f64>, change: Vec<f64>) {
        // Rounding may hide how the gradient changed.
        if inner(&step, &change) > 0.0 {
            self.steps.push_back((step, change));
        }
        if self.steps.len() > MEMORY {
            self.steps.pop_front();
        }
    }

    /// Minus the gradient, times what is known of the inverse Hessian.
    fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.steps.len());
        for (step, change) in self.steps.iter().rev() {
            let share = inner(step, &q) / inner(step, change);
            q.iter_mut().zip(change).for_each(|(q, c)| *q -= share * c);
            shares.push(share);
        }
        if let Some((step, change)) = self.steps.back() {
            let scale = inner(step, change) / inner(change, change);
            q.iter_mut().for_each(|q| *q *= scale);
        }
        for ((step, change), share) in self.steps.iter().zip(shares.iter().rev()) {
            let back = inner(change, &q) / inner(step, change);
            q.iter_mut().zip(step).for_each(|(q, s)| *q += (share - back) * s);
        }
        q
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{philox, unit};

    /// Rows of noise around a mean, and labels that the first feature gives, with some luck.
    fn noise(count: usize, width: usize) -> (Vec<f32>, Vec<f64>) {
        let random = |i: usize, j: usize| unit(philox(7, [i as u32, j as u32, 0, 0])[0]) - 0.5;
        let rows = (0..count * width).map(|i| 3.0 + random(i / width, i % width)).collect();
        let label = |i: usize| if random(i, 0) + 0.3 * random(i, width + 1) > 0.0 { 1.0 } else { -1.0 };
        (rows, (0..count).map(label).collect())
    }

    fn with_problem<T>(count: usize, width: usize, then: impl FnOnce(&Problem<'_>) -> T) -> T {
        let (values, labels) = noise(count, width);
        let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
        let standard = Standard::of(&rows);
        then(&Problem {
            examples: Examples { rows: &rows, labels: &labels, standard: &standard },
            penalty: 0.03,
        })
    }

    #[test]
    fn gradient_is_that_of_central_differences() {
        with_problem(40, 19, |problem| {
            let theta: Vec<f64> = (0..20).map(|i| 0.3 * (i as f64).sin()).collect();
            let (_, gradient) = problem.value_and_gradient(&theta);
            for i in 0..theta.len() {
                let moved = |by: f64| {
                    let mut theta = theta.clone();
                    theta[i] += by;
                    problem.value_and_gradient(&theta).0
                };
                let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!((gradient[i] - expected).abs() < 1e-4, "{i}: {} and {expected}", gradient[i]);
            }
        });
    }

    #[test]
    fn what_is_found_is_a_minimum() {
        for (count, width) in [(60, 5), (20, 64)] {
            with_problem(count, width, |problem| {
                let start = problem.value_and_gradient(&vec![0.0; width + 1]).1;
                let found = Classifier::fit(problem.examples, problem.penalty);
                let (value, gradient) = problem.value_and_gradient(&found.theta);
                assert!(value < 0.6, "{value}");
                assert!(inner(&gradient, &gradient) <= 1e-7 * inner(&start, &start));
            });
        }
    }

    #[test]
    fn certainty_does_not_overflow() {
        let standard = Standard::of(&[&[-1.0], &[1.0]]);
        let classifier = Classifier { theta: vec![1e4, 0.0], standard: &standard };
        assert_eq!(classifier.loss(&[&[1.0]], &[1.0]), 0.0);
        assert_eq!(classifier.loss(&[&[1.0]], &[-1.0]), 1e4);
    }
}
