//! A page of scored texts: each with its heat map, the scores of its lines, and where the guard looked.

use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

use super::heat::{Heat, rounded};
use super::html::{Page, escape, printable, visible};
use super::lines::{ScoredLine, lines};
use super::names::file_name;
use crate::deepguard::TextScores;

/// A text and its scores.
pub struct ScoredText<'a> {
    /// Path of the text, or what else the text is called.
    pub name: &'a Path,
    /// The text.
    pub text: &'a str,
    /// The text's scores.
    pub scores: &'a TextScores,
}

/// A text without scores.
pub struct Unscored<'a> {
    /// Path of the text, or what else the text is called.
    pub name: &'a Path,
    /// What is in the way.
    pub reason: &'a str,
}

/// The page. `model` and `adapter` say what scored.
pub fn page(texts: &[ScoredText<'_>], unscored: &[Unscored<'_>], model: &str, adapter: &str) -> String {
    let scores = texts.iter().flat_map(|text| &text.scores.tokens).map(|token| token.score);
    let heat = Heat::of(scores).unwrap_or_default();
    let sections: String = texts.iter().enumerate().map(|(i, text)| section(i, text, heat)).collect();
    let heading = heading(texts, model, adapter, heat);
    let body = format!("{heading}{}<div class=\"files\">\n{sections}</div>\n", failures(unscored))
        + "<div id=\"tip\" role=\"tooltip\" hidden></div>\n";
    let title = match texts {
        [only] if unscored.is_empty() => format!("{} – security scores", file_name(only.name)),
        _ => format!("Security scores of {} files", texts.len()),
    };
    let data = json!({"files": texts.iter().map(data).collect::<Vec<_>>()});
    Page {
        title: &title,
        style: concat!(include_str!("heat.css"), include_str!("scores.css")),
        body: &body,
        data: Some(&data),
        script: include_str!("scores.js"),
    }
    .to_html()
}

fn heading(texts: &[ScoredText<'_>], model: &str, adapter: &str, heat: Heat) -> String {
    let attends = texts.iter().any(|text| text.scores.tokens.iter().any(|token| !token.attention.is_empty()));
    let looked = if attends { " and how much the guard looked at each layer of the model" } else { "" };
    format!(
        "<h1>Security scores</h1>\n\
         <p class=\"faint\">Model <code>{}</code>, adapter <code>{}</code>. A score in (0, 1) ranks code by what the \
         guard has seen in training, high being secure; it is no proof, and not a probability. The number beside a \
         line is the mean of the tokens that begin there.<span class=\"screen\"> Point at a token, or go to it with \
         the tab and arrow keys, for its score{looked}.</span></p>\n{}",
        visible(model),
        visible(adapter),
        heat.legend()
    )
}

/// What could not be scored, and why; nothing where all could.
fn failures(unscored: &[Unscored<'_>]) -> String {
    let item = |Unscored { name, reason }: &Unscored<'_>| {
        format!("<li><code>{}</code>: {}</li>\n", visible(&file_name(name)), visible(reason))
    };
    let items: String = unscored.iter().map(item).collect();
    if items.is_empty() {
        items
    } else {
        format!("<h2>Not scored</h2>\n<ul class=\"unscored\">\n{items}</ul>\n")
    }
}

fn section(index: usize, text: &ScoredText<'_>, heat: Heat) -> String {
    let mut cells = Cells { text, heat, first: true };
    let rows: String = lines(text.text, text.scores).iter().map(|line| cells.row(line)).collect();
    format!(
        "<section class=\"file\" data-file=\"{index}\" aria-labelledby=\"file{index}\">\n\
         <header><h2 id=\"file{index}\">{}</h2><p>{}{}</p></header>\n\
         <table class=\"source code\"><caption class=\"hidden\">Source with scores</caption>\
         <thead class=\"hidden\"><tr><th scope=\"col\">Line</th><th scope=\"col\">Mean score</th>\
         <th scope=\"col\">Source</th></tr></thead>\n<tbody>\n{rows}</tbody></table>\n</section>\n",
        visible(&file_name(text.name)),
        text.scores.summary(),
        mean_attention(text.scores)
    )
}

/// The mean over the tokens, for those who print the page.
fn mean_attention(scores: &TextScores) -> String {
    let attending = scores.tokens.iter().filter(|token| !token.attention.is_empty()).count();
    if attending == 0 {
        return String::new();
    }
    let mean = |tap: usize| {
        let weights = scores.tokens.iter().filter_map(|token| token.attention.get(tap));
        100.0 * weights.sum::<f32>() / attending as f32
    };
    let layers = scores.layers.iter().enumerate();
    let shares: Vec<String> = layers.map(|(tap, layer)| format!("{layer}: {:.0} %", mean(tap))).collect();
    format!("<br>attention by layer {}", shares.join(", "))
}

/// Makes the rows of one text.
struct Cells<'a> {
    text: &'a ScoredText<'a>,
    heat: Heat,
    /// Whether the first token, which the tab key stops at, is still to come.
    first: bool,
}

impl Cells<'_> {
    fn row(&mut self, line: &ScoredLine) -> String {
        let strip = match line.score {
            Some(score) => format!("<td class=\"strip {}\">{score:.3}</td>", self.heat.class(score)),
            None => "<td class=\"strip\"></td>".to_owned(),
        };
        let mut source = String::new();
        for piece in &line.pieces {
            let shown = visible(piece_text(self.text.text, piece.range.clone()));
            match &piece.tokens {
                Some(tokens) => source.push_str(&self.token(tokens, piece.ends_line, &shown)),
                None => source.push_str(&shown),
            }
        }
        let number = line.number;
        format!("<tr><th scope=\"row\">{number}</th>{strip}<td class=\"text\">{source}</td></tr>\n")
    }

    fn token(&mut self, tokens: &Range<usize>, ends_line: bool, shown: &str) -> String {
        let of_tokens = &self.text.scores.tokens[tokens.clone()];
        let score = of_tokens.iter().map(|token| token.score).sum::<f32>() / of_tokens.len() as f32;
        let name = match tokens.len() {
            1 => tokens.start.to_string(),
            _ => format!("{}-{}", tokens.start, tokens.end - 1),
        };
        let tab = if std::mem::take(&mut self.first) { 0 } else { -1 };
        let end = if ends_line { "<span class=\"end\" aria-hidden=\"true\">↵</span>" } else { "" };
        let class = self.heat.class(score);
        format!("<span class=\"t {class}\" data-t=\"{name}\" tabindex=\"{tab}\">{shown}{end}</span>")
    }
}

fn piece_text(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

/// What the script shows of a text: numbers with as many digits as are shown.
fn data(text: &ScoredText<'_>) -> Value {
    let token = |token: &crate::deepguard::TokenScore| {
        let piece = piece_text(text.text, token.range.clone());
        let piece = printable(piece).replace('\n', "↵");
        let attention: Vec<f64> = token.attention.iter().map(|&weight| rounded(weight)).collect();
        json!([token.token, piece, rounded(token.score), attention])
    };
    json!({
        "name": escape(&file_name(text.name)),
        "layers": text.scores.layers,
        "tokens": text.scores.tokens.iter().map(token).collect::<Vec<_>>(),
    })
}
