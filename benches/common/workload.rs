//! What is measured and predicted: Qwen2.5-Coder, and a training step of every tenth of SVEN's lengths,
//! sixteen pairs with about as many tokens as the mean of all.

use deepguard::model::Config;
use deepguard::ops::attention::Segment;

use super::random_model::Lengths;

#[path = "../../tests/budgets/sven_lengths.rs"]
mod sven_lengths;

/// Name and configuration of Qwen2.5-Coder-7B.
pub const QWEN_7B: (&str, &str) = (
    "7B",
    r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#,
);

/// The same of Qwen2.5-Coder-0.5B.
pub const QWEN_HALF_B: (&str, &str) = (
    "0.5B",
    r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
    "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "use_sliding_window": false}"#,
);

const FIRST_PAIR: usize = 3;
const PAIRS: usize = 16;

pub fn lengths() -> Vec<Lengths> {
    let pair = |i: usize| sven_lengths::SVEN_LENGTHS[FIRST_PAIR + 10 * i];
    let lengths = |(secure, vulnerable, shared)| Lengths { secure, vulnerable, shared };
    (0..PAIRS).map(pair).map(lengths).collect()
}

/// Rows of secure functions, and with those of the suffixes of vulnerable ones.
pub fn rows(lengths: &[Lengths]) -> (usize, usize) {
    let secure: usize = lengths.iter().map(|pair| pair.secure).sum();
    (secure, secure + lengths.iter().map(|pair| pair.vulnerable - pair.shared).sum::<usize>())
}

/// The sequences of those rows: secure functions, and suffixes behind what they share with one.
pub fn segments(lengths: &[Lengths]) -> (Vec<Segment>, Vec<Segment>) {
    let (mut secure, mut suffixes) = (Vec::new(), Vec::new());
    let (mut start, mut suffix_start) = (0, rows(lengths).0 as u32);
    for pair in lengths {
        let (len, suffix) = (pair.secure as u32, (pair.vulnerable - pair.shared) as u32);
        secure.push(Segment { start, len, prefix_start: 0, prefix_len: 0 });
        let prefix_len = pair.shared as u32;
        suffixes.push(Segment { start: suffix_start, len: suffix, prefix_start: start, prefix_len });
        (start, suffix_start) = (start + len, suffix_start + suffix);
    }
    suffixes.retain(|segment| segment.len > 0);
    (secure, suffixes)
}

/// Operations that a step needs: products of blocks and head forward, gradients of their inputs of the rows
/// that have any, and attention to keys that are seen. Adapters and guard, some 1 %, do not count.
pub fn needed(config: &Config, lengths: &[Lengths], cached: bool) -> f64 {
    let (h, q, kv) = (config.hidden_size, config.q_size(), config.kv_size());
    let (secure, all) = rows(lengths);
    let qkv = h * (q + 2 * kv);
    let block = qkv + q * h + 3 * h * config.intermediate_size;
    let base = if cached { 0 } else { secure };
    let products = config.num_hidden_layers * block * (secure + all + base) - qkv * secure
        + 3 * h * config.vocab_size * secure;
    let seen = |len: usize, before: usize| len * before + len * (len + 1) / 2;
    let own: usize = lengths.iter().map(|pair| seen(pair.secure, 0)).sum();
    let others: usize = lengths.iter().map(|pair| seen(pair.vulnerable - pair.shared, pair.shared)).sum();
    let forward = own + others + if cached { 0 } else { own };
    let attention = config.num_hidden_layers * q * (2 * forward + 5 * own);
    2.0 * (products + attention) as f64
}
