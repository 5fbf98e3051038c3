//! Predictions of `tests/roofline.rs`.

/// TFLOP/s that are predicted for a product of a 7B training step on an H100.
pub fn tflops(product: &str) -> Option<f64> {
    let mut lines = include_str!("../../tests/roofline/predicted.csv").lines();
    let column = lines.next()?.split(';').position(|title| title == "TFLOP/s")?;
    let line = lines.find(|line| line.split(';').next() == Some(product))?;
    line.split(';').nth(column)?.parse().ok()
}
