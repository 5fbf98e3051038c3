//! Prints the lines of a source file that the guard trusts least.
//!
//! ```sh
//! cargo run --release --example score -- models/smollm2-135m runs/demo FILE
//! ```

use std::error::Error;
use std::path::Path;

use deepguard::DeepGuard;
use deepguard::cpu::Cpu;
use deepguard::deepguard::TextScores;

/// How many lines are shown.
const SHOWN: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, file] = args.as_slice() else {
        return Err("usage: score MODEL ADAPTER FILE".into());
    };
    let text = std::fs::read_to_string(file)?;

    let mut guard = DeepGuard::load(Cpu::new(), model)?;
    guard.attach(Path::new(adapter))?;
    let scores = guard.score(&text)?;

    println!("{file}: mean score {:.4} over {} tokens", scores.mean, scores.tokens.len());
    let mut lines = line_scores(&text, &scores);
    lines.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (number, score, line) in lines.into_iter().take(SHOWN) {
        println!("{number:>5}  {score:.4}  {line}");
    }
    Ok(())
}

/// Number, mean score and text of every line in which a token starts.
fn line_scores<'a>(text: &'a str, scores: &TextScores) -> Vec<(usize, f32, &'a str)> {
    let mut lines = Vec::new();
    let mut end = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bytes = end..end + line.len();
        end = bytes.end;
        let tokens = scores.tokens.iter().filter(|token| bytes.contains(&token.range.start));
        let of_line: Vec<f32> = tokens.map(|token| token.score).collect();
        if !of_line.is_empty() {
            let mean = of_line.iter().sum::<f32>() / of_line.len() as f32;
            lines.push((index + 1, mean, line.trim_end()));
        }
    }
    lines
}
