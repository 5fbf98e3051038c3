use deepguard::cpu::Cpu;
use deepguard::decode::{final_logits, score_with_attention};
use deepguard::guard::Aggregation;
use deepguard::probe::PairStates;

use crate::alone;
use crate::distance;
use crate::emulator::{checked, own_cuda};
use crate::support::{Setting, attached, model_on, pairs};

/// Each of some ten roundings to 8 bits on the way through 5 layers adds an error of about 1/600; they are
/// independent.
const ROUNDING: f64 = 0.02;

#[test]
fn cuda_logits_and_scores_are_those_of_the_cpu() {
    let _alone = alone();
    for name in ["llama-tiny", "qwen2-tiny"] {
        let (on_cpu, on_cuda) = (model_on(Cpu::new(), name), model_on(own_cuda(), name));
        for aggregation in Aggregation::ALL {
            let setting = Setting { aggregation, ..Setting::default() };
            let (cpu_guard, cuda_guard) = (attached(&on_cpu, setting), attached(&on_cuda, setting));
            for pair in &pairs() {
                let tokens = &pair.secure;
                let expected = final_logits(&on_cpu, Some(&cpu_guard), tokens).unwrap();
                let found = checked(final_logits(&on_cuda, Some(&cuda_guard), tokens));
                let off = distance(&found, &expected);
                assert!(off < ROUNDING, "{name}, logits of {} tokens: {off}", tokens.len());

                let expected = score_with_attention(&on_cpu, &cpu_guard, tokens).unwrap();
                let found = checked(score_with_attention(&on_cuda, &cuda_guard, tokens));
                let off = distance(&found.scores, &expected.scores);
                assert!(off < ROUNDING, "{name}, {aggregation}, scores: {off}");
                let attends = aggregation == Aggregation::Attention;
                assert_eq!(attends, !expected.attention.is_empty(), "{name}, {aggregation}");
                assert_eq!(found.attention.len(), expected.attention.len(), "{name}, {aggregation}");
                if attends {
                    let off = distance(&found.attention, &expected.attention);
                    assert!(off < ROUNDING, "{name}, attention: {off}");
                }
            }
        }
    }
}

#[test]
fn cuda_states_of_a_probe_are_those_of_the_cpu() {
    let _alone = alone();
    for name in ["llama-tiny", "qwen2-tiny"] {
        let (on_cpu, on_cuda) = (model_on(Cpu::new(), name), model_on(own_cuda(), name));
        let (cpu_guard, cuda_guard) =
            (attached(&on_cpu, Setting::default()), attached(&on_cuda, Setting::default()));
        let pairs = pairs();
        let expected =
            PairStates::read(&on_cpu, Some(&cpu_guard), &pairs, usize::MAX, &mut |_| Ok(())).unwrap();
        let found =
            checked(PairStates::read(&on_cuda, Some(&cuda_guard), &pairs, usize::MAX, &mut |_| Ok(())));
        let base = PairStates::read(&on_cpu, None, &pairs, usize::MAX, &mut |_| Ok(())).unwrap();
        for (layer, pair) in (0..expected.layers()).flat_map(|l| (0..pairs.len()).map(move |p| (l, p))) {
            let of = |states: &PairStates| states.pair(layer, pair).concat();
            let off = distance(&of(&found), &of(&expected));
            assert!(off < ROUNDING, "{name}, layer {layer}, pair {pair}: {off}");
            let apart = distance(&of(&base), &of(&expected));
            assert!(
                apart > ROUNDING,
                "{name}, layer {layer}, pair {pair}: the adapter moves states by {apart}"
            );
        }
    }
}
