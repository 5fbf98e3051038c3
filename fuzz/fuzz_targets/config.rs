//! `config.json`: any text is a configuration or an error, and what is accepted can be computed with.
#![no_main]

use deepguard::model::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::from_json(text) {
        assert!(config.q_size() > 0 && config.kv_size() > 0);
        assert!(config.rope_frequencies().iter().all(|frequency| frequency.is_finite()));
    }
});
