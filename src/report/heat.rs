//! The colours of scores: from low, less secure, to high, more secure. `heat.css` has them.

/// Steps of the colours on both sides of the middle.
const HALF_STEPS: f32 = 5.0;

/// The range of all scores of a page: the same colour is the same score everywhere in it.
#[derive(Clone, Copy)]
pub(super) struct Heat {
    low: f32,
    high: f32,
}

impl Default for Heat {
    fn default() -> Self {
        Heat { low: 0.0, high: 1.0 }
    }
}

impl Heat {
    /// The range of `scores`; `None` where there are none.
    pub(super) fn of(scores: impl Iterator<Item = f32>) -> Option<Self> {
        let ends = (f32::INFINITY, f32::NEG_INFINITY);
        let (low, high) = scores.fold(ends, |(low, high), score| (score.min(low), score.max(high)));
        (low <= high).then_some(Heat { low, high })
    }

    /// From 0, low, to 10, high. Where all scores are the same, they are neither.
    pub(super) fn step(self, score: f32) -> u8 {
        let width = self.high - self.low;
        let share = if width > 0.0 { (score - self.low) / width } else { 0.5 };
        (share.clamp(0.0, 1.0) * 2.0 * HALF_STEPS).round() as u8
    }

    /// The CSS class of a score.
    pub(super) fn class(self, score: f32) -> String {
        format!("h{}", self.step(score))
    }

    /// The colours, with the scores at both ends.
    pub(super) fn legend(self) -> String {
        let ramp: String = (0..=10).map(|step| format!("<span class=\"h{step}\"></span>")).collect();
        format!(
            "<div class=\"legend\"><span>{:.4}, less secure</span>\
             <span class=\"ramp\" aria-hidden=\"true\">{ramp}</span><span>{:.4}, more secure</span></div>\n",
            self.low, self.high
        )
    }
}

/// A score with as many digits as are shown.
pub(super) fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1e4).round() / 1e4
}
