//! `dg-run probe`.

use super::tiny::Tiny;
use super::{run, trained};

const PROBE: &str = "probe --model model --data data/train --max-seq-len 160 --device cpu";

#[test]
fn a_table_or_json_of_every_layer() {
    let tiny = Tiny::new("qwen2");
    let table = run(&tiny, PROBE).ok();
    assert!(table.stdout.contains("8 pairs in 8 groups, 5 folds") && table.stdout.contains("chance is 0.5"));
    let rows = table.stdout.lines().filter(|line| line.trim_start().starts_with(char::is_numeric));
    assert_eq!(rows.filter(|line| line.contains(" to ")).count(), 5, "{}", table.stdout);

    let json: serde_json::Value =
        serde_json::from_str(&run(&tiny, &format!("{PROBE} --json")).ok().stdout).unwrap();
    assert_eq!(
        (json["pairs"].as_u64(), json["chance"].as_f64(), json["folds"].as_u64()),
        (Some(8), Some(0.5), Some(5))
    );
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5);
    for (i, layer) in layers.iter().enumerate() {
        assert_eq!(layer["layer"], i + 1);
        for share in ["accuracy", "pair_accuracy"].map(|name| &layer[name]) {
            let [low, value, high] = ["low", "value", "high"].map(|name| share[name].as_f64().unwrap());
            assert!(0.0 <= low && low <= value && value <= high && high <= 1.0, "{layer}");
        }
    }
    assert!(json.as_object().unwrap().contains_key("signal"));
}

#[test]
fn an_adapter_changes_what_is_probed() {
    let tiny = trained();
    let of = |arguments: &str| run(&tiny, &format!("{PROBE} --json {arguments}")).ok().stdout;
    assert_eq!(of(""), of(""));
    assert_ne!(of("--adapter run"), of(""));
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let tiny = Tiny::new("llama");
    run(&tiny, &format!("{PROBE} --folds 1")).fails(2, &["--folds", "at least 2"]);
    run(&tiny, &format!("{PROBE} --folds 9")).fails(3, &["at least 9", "found 8", "--folds"]);
    run(&tiny, &PROBE.replace("160", "0")).fails(2, &["--max-seq-len"]);
    run(&tiny, &PROBE.replace("160", "99999")).fails(2, &["--max-seq-len", "2048"]);
    run(&tiny, &PROBE.replace("data/train", "nowhere")).fails(3, &["nowhere"]);
    let page = run(&tiny, &format!("{PROBE} --html /proc/none/page.html"));
    assert_eq!(page.code, 5, "{}", page.stderr);
    assert!(page.stderr.contains("/proc/none/page.html"), "{}", page.stderr);
}
