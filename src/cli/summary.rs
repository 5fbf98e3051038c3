//! What a training run changed: the validation before its first step beside that of the adapter it kept.

use crate::train::checkpoint::TrainerState;
use crate::train::evaluation::Evaluation;

/// A table of both evaluations; `None` for a run without validation pairs.
pub fn before_and_after(state: &TrainerState) -> Option<String> {
    let at = |step: usize| state.evaluations.iter().find(|(s, _)| *s == step).map(|(_, e)| e);
    let before = at(0)?;
    let after = at(state.best_step).filter(|_| state.best_step > 0)?;
    let title = format!("validation of {} pairs", before.pairs);
    let mut table = format!("{title:<44}{:>10}{:>12}\n", "before", format!("step {}", state.best_step));
    for (name, figure) in ROWS {
        if let (Some(before), Some(after)) = (figure(before), figure(after)) {
            table.push_str(&format!("{name:<44}{before:>10}{after:>12}\n"));
        }
    }
    table.pop();
    Some(table)
}

/// A line of the table: what it says, and the figure, if the method has such a one.
type Row = (&'static str, fn(&Evaluation) -> Option<String>);

const ROWS: [Row; 9] = [
    ("loss", |e| four(e.total.into())),
    ("  language model, nats per token", |e| four(e.generation.into())),
    ("  security loss", |e| four(e.security)),
    ("  KL divergence to the base model", |e| four(e.kl)),
    ("secure function likelier than vulnerable", |e| percent(e.preference_accuracy.into())),
    ("  by, nats per token", |e| Some(format!("{:+.4}", e.preference_margin))),
    ("secure function scored higher", |e| percent(e.separation_accuracy)),
    ("  mean score of secure functions", |e| four(e.mean_score_secure)),
    ("  mean score of vulnerable functions", |e| four(e.mean_score_vulnerable)),
];

fn four(figure: Option<f64>) -> Option<String> {
    figure.map(|figure| format!("{figure:.4}"))
}

fn percent(share: Option<f64>) -> Option<String> {
    share.map(|share| format!("{:.0} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_first_and_the_kept_evaluation() {
        let evaluation =
            |total| Evaluation { total, preference_accuracy: 0.5, pairs: 12, ..Default::default() };
        let evaluations = vec![(0, evaluation(2.0)), (9, evaluation(1.0)), (18, evaluation(1.5))];
        let state = TrainerState { best_step: 9, evaluations, ..Default::default() };
        let table = before_and_after(&state).unwrap();
        assert!(!table.contains("security"), "{table}");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 1 + 4, "figures that there are not are left out");
        assert!(lines[0].starts_with("validation of 12 pairs") && lines[0].ends_with("before      step 9"));
        assert!(lines[1].starts_with("loss") && lines[1].ends_with("2.0000      1.0000"));
        assert!(lines[3].ends_with("50 %        50 %"));
        assert_eq!(before_and_after(&TrainerState::default()), None);
    }

    /// Whichever the method's is.
    #[test]
    fn shows_the_security_loss() {
        let evaluation = |total| Evaluation { total, security: Some(total / 4.0), ..Default::default() };
        let evaluations = vec![(0, evaluation(2.0)), (9, evaluation(1.0))];
        let table = before_and_after(&TrainerState { best_step: 9, evaluations, ..Default::default() });
        let table = table.unwrap();
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("loss ").ends_with("2.0000      1.0000"), "{table}");
        assert!(line("  security loss ").ends_with("0.5000      0.2500"), "{table}");
    }
}
