//! The whole model's gradients against central differences, and equalities between ways to compute them.

#[path = "common/places.rs"]
mod places;
mod support;

#[path = "gradients/methods.rs"]
mod methods;

use deepguard::ErrorKind;
use deepguard::cpu::Cpu;
use deepguard::dist::World;
use deepguard::guard::Aggregation;
use deepguard::model::activations::Recompute;
use deepguard::model::params::Param;
use deepguard::train::batch::TokenPair;
use deepguard::train::step::{Losses, Objective, Stepper, Update};
use support::{Random, Setting, micro_batches_of_one, model, one_micro_batch, pairs, stepper};

const STEP: Option<u32> = Some(3);

fn gradients(stepper: &Stepper<'_, Cpu>) -> Vec<f32> {
    stepper.grads().all().as_slice().to_vec()
}

/// Losses and gradients of one step from scratch.
fn fresh(setting: Setting, step: Option<u32>) -> (Losses, Vec<f32>) {
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, setting);
    let losses = stepper.gradients(&one_micro_batch(&pairs), step).unwrap();
    (losses, gradients(&stepper))
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// |a − b| / |b|.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(b)
}

/// Central differences of the joint loss along directions in parameter space.
struct Differences<'m> {
    stepper: Stepper<'m, Cpu>,
    pairs: Vec<TokenPair>,
    at_zero: Losses,
    gradient: Vec<f32>,
}

impl<'m> Differences<'m> {
    fn new(model: &'m deepguard::model::Transformer<Cpu>, setting: Setting) -> Self {
        let pairs = pairs();
        let mut stepper = stepper(model, &pairs, setting);
        let at_zero = stepper.gradients(&one_micro_batch(&pairs), STEP).unwrap();
        assert!(
            at_zero.security > 0.0 && at_zero.kl_before_clamp < 1.0,
            "all terms need a gradient: {at_zero:?}"
        );
        let gradient = gradients(&stepper);
        Differences { stepper, pairs, at_zero, gradient }
    }

    /// The part of the loss that has a gradient. The vulnerable pass sends none into the language model: its
    /// scores are held fixed while adapters move. The language model's terms, whose rounding would drown the
    /// guard's small gradients, are left out while the guard moves: they do not depend on it.
    fn loss(&mut self, guard_moves: bool) -> f64 {
        let micro_batches = one_micro_batch(&self.pairs);
        let losses = self.stepper.gradients(&micro_batches, STEP).unwrap();
        let weight = self.stepper.objective.security_weight;
        if guard_moves {
            return -weight * (losses.mean_score_secure - losses.mean_score_vulnerable);
        }
        let scores = losses.mean_score_secure - self.at_zero.mean_score_vulnerable;
        losses.generation + self.stepper.objective.kl_weight * losses.kl_before_clamp - weight * scores
    }

    /// Loss at parameters moved by `h · direction`, and how far each really moved in f32.
    fn moved(&mut self, moves: &[(Param, Vec<f32>)], h: f32, guard: bool) -> (f64, Vec<f64>) {
        let mut originals = Vec::new();
        let mut reached = Vec::new();
        for (param, direction) in moves {
            let original = self.stepper.attached.params.download(param).unwrap();
            let moved: Vec<f32> = original.iter().zip(direction).map(|(p, d)| p + h * d).collect();
            reached.extend(moved.iter().map(|&p| f64::from(p)));
            self.stepper.attached.params.upload(param, &moved);
            originals.push(original);
        }
        let loss = self.loss(guard);
        for ((param, _), original) in moves.iter().zip(originals) {
            self.stepper.attached.params.upload(param, &original);
        }
        (loss, reached)
    }

    /// (central difference, what the gradient predicts for it), both over the distance really moved.
    fn difference(&mut self, moves: &[(Param, Vec<f32>)], h: f32, guard: bool) -> (f64, f64) {
        let (above, up) = self.moved(moves, h, guard);
        let (below, down) = self.moved(moves, -h, guard);
        let gradient = moves.iter().flat_map(|(param, _)| &self.gradient[param.range.clone()]);
        let predicted = gradient.zip(up.iter().zip(&down)).map(|(&g, (u, d))| f64::from(g) * (u - d)).sum();
        (above - below, predicted)
    }

    /// Compares along `moves`, with the error term in h² removed by a second difference at 2h.
    fn check(&mut self, moves: &[(Param, Vec<f32>)], h: f32, guard: bool, what: &str) {
        let (near, predicted) = self.difference(moves, h, guard);
        let (far, _) = self.difference(moves, 2.0 * h, guard);
        let found = (8.0 * near - far) / 6.0;
        let rounding = if guard { 2e-8 } else { 1e-6 };
        let allowed = 1e-3 * predicted.abs() + rounding;
        assert!(
            (found - predicted).abs() < allowed,
            "{what}: loss moved by {found:e}, gradient says {predicted:e}"
        );
        assert!(predicted.abs() > 50.0 * rounding, "{what}: {predicted:e} is too small to be seen");
    }

    /// How far to go along a unit vector with this slope. The farther, the less rounding matters (1e-6 of the
    /// language model's terms, 2e-8 of the mean scores) and the more curvature and the ReLUs' kinks do.
    fn distance_for(&self, slope: f64, guard: bool) -> f32 {
        let (change, limit) = if guard { (1e-4, 3e-2) } else { (1e-2, 1e-2) };
        (change / slope.abs()).min(limit) as f32
    }

    fn unit_gradient(&self, param: &Param) -> Vec<f32> {
        let gradient = &self.gradient[param.range.clone()];
        let length = norm(gradient) as f32;
        gradient.iter().map(|g| g / length).collect()
    }

    fn params(&self) -> Vec<Param> {
        self.stepper.attached.params.layout().params().to_vec()
    }
}

fn of_guard(param: &Param) -> bool {
    param.name.starts_with("security_analyzer")
}

/// Every tensor alone along its own gradient, where an error in it cannot hide behind larger ones.
fn every_tensor(setting: Setting) {
    let model = model(setting.model);
    let mut differences = Differences::new(&model, setting);
    for param in differences.params() {
        if norm(&differences.gradient[param.range.clone()]) == 0.0 {
            assert!(param.name.ends_with("key.bias"), "{} has no gradient", param.name);
            continue;
        }
        let direction = differences.unit_gradient(&param);
        let h = differences.distance_for(norm(&differences.gradient[param.range.clone()]), of_guard(&param));
        let what = format!("{} of {}", param.name, setting.model);
        differences.check(&[(param.clone(), direction)], h, of_guard(&param), &what);
    }
}

/// All adapters, or all of the guard, at once along random directions: each element by a random part of its
/// gradient.
fn random_directions(setting: Setting) {
    let model = model(setting.model);
    let mut differences = Differences::new(&model, setting);
    let mut random = Random::new(3);
    for guard in [false, true] {
        for _ in 0..4 {
            let params: Vec<Param> =
                differences.params().into_iter().filter(|p| of_guard(p) == guard).collect();
            let part = |param: Param, random: &mut Random| {
                let gradient = &differences.gradient[param.range.clone()];
                let direction: Vec<f32> = gradient.iter().map(|g| g * (random.signed() + 0.5)).collect();
                (param, direction)
            };
            let mut moves: Vec<(Param, Vec<f32>)> =
                params.into_iter().map(|p| part(p, &mut random)).collect();
            let length = moves.iter().map(|(_, d)| norm(d).powi(2)).sum::<f64>().sqrt() as f32;
            moves.iter_mut().for_each(|(_, d)| d.iter_mut().for_each(|d| *d /= length));
            let slope =
                moves.iter().map(|(p, d)| dot(&differences.gradient[p.range.clone()], d)).sum::<f64>();
            let h = differences.distance_for(slope, guard);
            differences.check(&moves, h, guard, &format!("random direction, guard={guard}"));
        }
    }
}

#[test]
fn llama_attention_matches_central_differences() {
    every_tensor(Setting::default());
    random_directions(Setting::default());
}

#[test]
fn qwen2_average_matches_central_differences() {
    let setting = Setting { model: "qwen2-tiny", aggregation: Aggregation::Average, ..Setting::default() };
    every_tensor(setting);
    random_directions(setting);
}

#[test]
fn qwen2_attention_recomputed_matches_central_differences() {
    let setting = Setting { model: "qwen2-tiny", recompute: Recompute::Block, ..Setting::default() };
    every_tensor(setting);
}

#[test]
fn llama_last_layer_matches_central_differences() {
    let setting = Setting { aggregation: Aggregation::LastLayer, ..Setting::default() };
    every_tensor(setting);
    random_directions(setting);
}

#[test]
fn recomputing_changes_no_bit() {
    let (losses, gradients) = fresh(Setting::default(), STEP);
    for recompute in [Recompute::GateUp, Recompute::Block] {
        let (other_losses, other) = fresh(Setting { recompute, ..Setting::default() }, STEP);
        assert_eq!(losses, other_losses, "{recompute:?}");
        assert_eq!(gradients, other, "{recompute:?}");
    }
}

#[test]
fn sharing_the_prefix_changes_rounding_only() {
    for aggregation in Aggregation::ALL {
        let shared = Setting { aggregation, dropout: 0.0, ..Setting::default() };
        let alone = Setting { objective: shared.objective.with(|o| o.share_prefix = false), ..shared };
        let ((losses, gradients), (other_losses, other)) = (fresh(shared, None), fresh(alone, None));
        assert!((losses.total - other_losses.total).abs() < 1e-6, "{losses:?} {other_losses:?}");
        let distance = distance(&gradients, &other);
        assert!(distance < 1e-5, "{aggregation}: gradients differ by {distance:e}");
    }
}

#[test]
fn cached_base_states_change_rounding_only() {
    let setting = Setting { base_cache: true, ..Setting::default() };
    let (model, pairs) = (model(setting.model), pairs());
    let mut cached = stepper(&model, &pairs, setting);
    let (_, expected) = fresh(Setting::default(), STEP);
    for round in 0..3 {
        // The first round fills the cache; the others read it, cut differently.
        let micro_batches = if round == 1 { micro_batches_of_one(&pairs) } else { one_micro_batch(&pairs) };
        cached.gradients(&micro_batches, STEP).unwrap();
        let distance = distance(&gradients(&cached), &expected);
        assert!(distance < 1e-5, "round {round}: gradients differ by {distance:e}");
    }
}

#[test]
fn micro_batches_of_one_equal_one_of_all_with_dropout() {
    let setting = Setting::default();
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, setting);
    let (losses, expected) = fresh(setting, STEP);
    let cut: [Vec<Vec<&TokenPair>>; 2] =
        [micro_batches_of_one(&pairs), vec![vec![&pairs[0]], pairs[1..].iter().collect()]];
    for micro_batches in cut {
        let found = stepper.gradients(&micro_batches, STEP).unwrap();
        assert!((found.total - losses.total).abs() < 1e-6, "{found:?} {losses:?}");
        let distance = distance(&gradients(&stepper), &expected);
        assert!(distance < 1e-5, "{} micro-batches: gradients differ by {distance:e}", micro_batches.len());
    }
}

#[test]
fn dropout_depends_on_the_step_only() {
    let (_, at_3) = fresh(Setting::default(), STEP);
    let (_, again) = fresh(Setting::default(), STEP);
    let (_, at_4) = fresh(Setting::default(), Some(4));
    assert_eq!(at_3, again);
    assert!(distance(&at_4, &at_3) > 0.05);
}

/// One stepper is led through regimes, in which hinge and KL limit have a gradient or not; each time it must
/// give what a fresh one without that term gives, although it expected the regime before.
#[test]
fn inactive_terms_have_no_gradient() {
    let setting = Setting { dropout: 0.0, ..Setting::default() };
    let active = setting.objective;
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, setting);
    let mut expect = |objective: Objective, same_as: Objective, what: &str| {
        stepper.objective = objective;
        let losses = stepper.gradients(&one_micro_batch(&pairs), None).unwrap();
        let (_, expected) = fresh(Setting { objective: same_as, ..setting }, None);
        let distance = distance(&gradients(&stepper), &expected);
        assert!(distance < 1e-6, "{what}: gradients differ by {distance:e}");
        losses
    };
    let losses = expect(active, active, "all active");
    assert!(losses.kl_before_clamp > 1e-3 && losses.kl_before_clamp < 1.0 && losses.security > 0.0);

    let clamped = active.with(|o| o.kl_max = 1e-3);
    let losses = expect(clamped, active.with(|o| o.kl_weight = 0.0), "KL above its limit");
    assert_eq!(losses.kl, 1e-3);
    assert!((losses.total - losses.generation - 0.5 * losses.security - 1e-3).abs() < 1e-12);

    expect(active, active, "KL below its limit again");
    let satisfied = active.with(|o| o.margin = -2.0);
    let losses = expect(satisfied, active.with(|o| o.security_weight = 0.0), "margin satisfied");
    assert_eq!(losses.security, 0.0);

    let neither = active.with(|o| {
        o.kl_max = 1e-3;
        o.margin = -2.0;
    });
    expect(
        neither,
        active.with(|o| {
            o.kl_weight = 0.0;
            o.security_weight = 0.0;
        }),
        "neither",
    );
    expect(active, active, "all active again");
}

#[test]
fn a_satisfied_margin_leaves_the_guard_without_gradient() {
    let setting = Setting::default();
    let objective = setting.objective.with(|o| o.margin = -2.0);
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, Setting { objective, ..setting });
    stepper.gradients(&one_micro_batch(&pairs), STEP).unwrap();
    let params = stepper.attached.params.layout().params();
    for param in params.iter().filter(|p| of_guard(p)) {
        assert!(stepper.grads().get(param).as_slice().iter().all(|&g| g == 0.0), "{}", param.name);
    }
}

#[test]
fn a_step_with_a_gradient_that_is_not_finite_is_skipped() {
    let setting = Setting::default();
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, setting);
    let update = Update { lr: 1e-3, weight_decay: 0.01, max_grad_norm: 1.0 };
    let params = stepper.attached.params.layout().params().to_vec();
    let values = |stepper: &Stepper<'_, Cpu>| -> Vec<Vec<f32>> {
        params.iter().map(|p| stepper.attached.params.download(p).unwrap()).collect()
    };
    let (before, broken) = (values(&stepper), &params[2]);
    for bad in [f32::NAN, f32::INFINITY] {
        stepper.attached.params.upload(broken, &vec![bad; broken.range.len()]);
        let report = stepper.step(&one_micro_batch(&pairs), 0, update).unwrap();
        assert!(report.skipped, "{bad} in {}: {report:?}", broken.name);
        stepper.attached.params.upload(broken, &before[2]);
        assert_eq!(values(&stepper), before, "the parameters after {bad}");
        assert_eq!(stepper.moments.t, 0);
    }
    let report = stepper.step(&one_micro_batch(&pairs), 0, update).unwrap();
    assert!(!report.skipped && stepper.moments.t == 1 && values(&stepper) != before);
}

#[test]
fn an_abandoned_step_changes_nothing() {
    let setting = Setting::default();
    let (model, pairs) = (model(setting.model), pairs());
    let update = Update { lr: 1e-2, weight_decay: 0.1, max_grad_norm: 1.0 };
    let mut undisturbed = stepper(&model, &pairs, setting);
    let mut disturbed = stepper(&model, &pairs, setting);
    for step in 0..3 {
        for micro_batches in 0..pairs.len() {
            let mut asked = 0;
            let stop = &mut || {
                asked += 1;
                asked > micro_batches
            };
            let world = &mut World::alone();
            let ended = disturbed.step_unless(&micro_batches_of_one(&pairs), None, step, update, world, stop);
            let error = ended.unwrap_err();
            assert_eq!((error.kind(), asked), (ErrorKind::Interrupted, micro_batches + 1));
        }
        let [found, expected] = [&mut disturbed, &mut undisturbed]
            .map(|s| s.step(&micro_batches_of_one(&pairs), step, update).unwrap());
        assert_eq!(found, expected);
    }
    let values = |s: &Stepper<'_, Cpu>| -> Vec<Vec<f32>> {
        let params = s.attached.params.layout().params();
        params.iter().map(|p| s.attached.params.download(p).unwrap()).collect()
    };
    assert_eq!(values(&disturbed), values(&undisturbed));
    assert_eq!(disturbed.attached.stats, undisturbed.attached.stats);
}

#[test]
fn training_lowers_the_loss() {
    let setting = Setting { base_cache: true, ..Setting::default() };
    let (model, pairs) = (model(setting.model), pairs());
    let mut stepper = stepper(&model, &pairs, setting);
    let update = Update { lr: 3e-3, weight_decay: 0.01, max_grad_norm: 1.0 };
    let step = |stepper: &mut Stepper<'_, Cpu>, t| {
        stepper.step(&micro_batches_of_one(&pairs), t, update).unwrap().losses
    };
    let first = step(&mut stepper, 0);
    let last = (1..20).map(|t| step(&mut stepper, t)).last().unwrap();
    assert!(last.total < first.total - 1.0, "{first:?} {last:?}");
}

/// An evaluation gives every token of both functions its score and its likelihood, with or without a shared
/// prefix.
#[test]
fn evaluation_covers_both_functions() {
    let shared = Setting::default();
    let alone = Setting { objective: shared.objective.with(|o| o.share_prefix = false), ..shared };
    let (model, pairs) = (model(shared.model), pairs());
    let evaluate = |setting| {
        let mut stepper = stepper(&model, &pairs, setting);
        stepper.evaluate(&pairs.iter().collect::<Vec<_>>()).unwrap()
    };
    let ((plan, rows), (other_plan, other)) = (evaluate(shared), evaluate(alone));
    for ((pair, place), other_place) in pairs.iter().zip(&plan.pairs).zip(&other_plan.pairs) {
        let own: Vec<usize> = plan.vulnerable_rows(place).collect();
        let others: Vec<usize> = other_plan.vulnerable_rows(other_place).collect();
        assert_eq!(own.len(), pair.vulnerable.len());
        for (t, (&a, &b)) in own.iter().zip(&others).enumerate() {
            assert!((rows.scores[a] - other.scores[b]).abs() < 1e-6, "score {t} of pair {}", pair.id);
            assert!((rows.nll[a] - other.nll[b]).abs() < 1e-4, "likelihood {t} of pair {}", pair.id);
        }
    }
}
