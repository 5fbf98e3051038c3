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
    assert!(table.stderr.contains("fitting 25 probes"), "{}", table.stderr);

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
    assert_eq!(json["significance"], 0.05);
    let p_values: Vec<f64> = layers.iter().map(|layer| layer["p_value"].as_f64().unwrap()).collect();
    assert!(p_values.iter().all(|p| (2.0 / 256.0..=1.0).contains(p)), "{p_values:?}");
    let smallest = p_values.iter().copied().fold(1.0, f64::min);
    assert_eq!(json["signal"].is_null(), smallest >= 0.05);
    let shown = if smallest < 0.05 { "is best" } else { "No layer is above chance for certain" };
    assert!(
        table.stdout.contains(shown) && table.stdout.contains(&format!("p = {smallest:.3}")),
        "{}",
        table.stdout
    );
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
    run(&tiny, &format!("{PROBE} --folds 2")).fails(2, &["--folds", "at least 3", "found 2"]);
    run(&tiny, &format!("{PROBE} --folds 9")).fails(3, &["at least 9", "found 8", "--folds"]);
    run(&tiny, &PROBE.replace("160", "0")).fails(2, &["--max-seq-len"]);
    run(&tiny, &PROBE.replace("160", "99999")).fails(2, &["--max-seq-len", "2048"]);
    run(&tiny, &PROBE.replace("data/train", "nowhere")).fails(3, &["nowhere"]);
    let page = run(&tiny, &format!("{PROBE} --html /proc/none/page.html"));
    assert_eq!(page.code, 5, "{}", page.stderr);
    assert!(page.stderr.contains("/proc/none/page.html"), "{}", page.stderr);
}

#[test]
fn the_page_has_the_p_values() {
    let tiny = Tiny::new("llama");
    run(&tiny, &format!("{PROBE} --html page.html")).ok();
    let page = std::fs::read_to_string(tiny.path("page.html")).unwrap();
    assert!(page.contains("Best p value") && page.contains("<th scope=\"col\">p</th>"), "{page}");
    assert_eq!(page.matches("</td></tr>").count(), 5);
}

#[test]
fn states_that_are_not_finite_are_refused() {
    let tiny = Tiny::new("llama");
    tiny.edit_tensor("model.layers.2.mlp.down_proj.weight", |values| values[0] = f32::NAN);
    run(&tiny, PROBE).fails(4, &["layer 3", "pair 1 of the data", "NaN", "weights"]);
    tiny.edit_tensor("model.layers.2.mlp.down_proj.weight", |values| values.fill(3e38));
    run(&tiny, PROBE).fails(4, &["layer 3", "pair 1 of the data", "weights"]);
}
