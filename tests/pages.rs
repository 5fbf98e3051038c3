//! The pages that `dg-run` writes: what they say, and how a browser shows them.
//!
//! Pictures of them are left in the folder `pages` of cargo's folder for tests' files, for people to look at.

#[path = "pages/browser.rs"]
mod browser;
#[cfg(unix)]
#[path = "pages/evaluations.rs"]
mod evaluations;
#[cfg(unix)]
#[path = "common/hand_made.rs"]
mod hand_made;
#[path = "common/places.rs"]
mod places;
#[path = "common/required.rs"]
mod required;
#[path = "common/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::process::Command;

use browser::{Browser, Look};
use serde_json::{Value, json};
use tiny::Tiny;

const WIDE: Look = Look { dark: false, width: 1400, height: 1000 };
const DARK: Look = Look { dark: true, ..WIDE };
const NARROW: Look = Look { width: 400, ..WIDE };

/// Code whose text is as unlike HTML as can be.
const HOSTILE: &str = "def f(x):\n\tif x < 1 && y > 2:\n\t\treturn '</script><script>document.title=\"owned\"</script>'\n\
                       # déjà vu 漢字 🦀 <!-- & --> \u{202e}gnp.\u{202c}\u{0}\r\n\n  tail";

/// Runs `dg-run` in the temporary folder.
fn dg_run(tiny: &Tiny, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    let output =
        command.current_dir(tiny.path("")).env("HF_HOME", tiny.path("")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn ok(tiny: &Tiny, arguments: &str) -> String {
    let (code, stdout, stderr) = dg_run(tiny, &arguments.split_whitespace().collect::<Vec<_>>());
    assert_eq!(code, 0, "{stderr}");
    stdout
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A tiny model with a trained run in `run`.
fn trained() -> Tiny {
    let tiny = Tiny::new("llama");
    ok(
        &tiny,
        "train --model model --data data --output-dir run --num-epochs 4 --batch-size 2 --gradient-accumulation-steps \
         1 --max-seq-len 160 --lora-r 4 --lr 1e-3 --eval-steps 2",
    );
    tiny
}

/// A page of three files: ordinary, hostile, and one of a single long line.
fn scores_page(tiny: &Tiny) -> PathBuf {
    std::fs::write(
        tiny.path("vulnerable.py"),
        "def find(db, name):\n    rows = db.execute(\"SELECT id FROM users WHERE name = '%s'\" % name)\n    \
         return rows.fetchall()\n",
    )
    .unwrap();
    std::fs::write(tiny.path("hostile <b>.py"), HOSTILE).unwrap();
    std::fs::write(tiny.path("long.js"), format!("x = [{}]\n", "'0123456789', ".repeat(60))).unwrap();
    let page = tiny.path("scores.html");
    let arguments = ["score", "--model", "model", "--adapter", "run", "--html", "scores.html"];
    let files = ["vulnerable.py", "hostile <b>.py", "long.js"];
    let (code, stdout, stderr) = dg_run(tiny, &[&arguments[..], &files].concat());
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("written: scores.html"), "{stderr}");
    page
}

fn report_page(tiny: &Tiny) -> PathBuf {
    assert_eq!(ok(tiny, "report run"), "");
    tiny.path("run/report.html")
}

/// Where pictures of pages go.
fn pictures() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn take_pictures(browser: &Browser, page: &Path, name: &str) {
    let dir = pictures();
    let tall = |look: Look| Look { height: 2400, ..look };
    browser.screenshot(page, tall(WIDE), &dir.join(format!("{name}-light.png")));
    browser.screenshot(page, tall(DARK), &dir.join(format!("{name}-dark.png")));
    browser.screenshot(page, tall(NARROW), &dir.join(format!("{name}-narrow.png")));
    browser.print(page, &dir.join(format!("{name}-print.pdf")));
}

/// Looks at a page, which must neither complain nor ask for anything.
#[track_caller]
fn look(browser: &Browser, page: &Path, look: Look, probe: &str) -> Value {
    let seen = browser.look(page, look, probe);
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.requests, Vec::<String>::new());
    seen.probe
}

#[test]
fn a_bad_page_would_be_noticed() {
    let Some(browser) = Browser::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("bad.html");
    let html =
        "<body><img src=\"http://example.com/x.png\"><script>console.error('oh'); nothing();</script></body>";
    std::fs::write(&page, html).unwrap();
    let seen = browser.look(&page, WIDE, "return 1;");
    assert!(seen.requests.iter().any(|request| request.contains("example.com")), "{:?}", seen.requests);
    for complaint in ["oh", "nothing is not defined"] {
        assert!(seen.console.iter().any(|line| line.contains(complaint)), "{:?}", seen.console);
    }
}

/// The shown lines without the signs, files by files.
const SHOWN_TEXT: &str = "return [...document.querySelectorAll('.file')].map(file =>
    [...file.querySelectorAll('.text')].map(cell => {
        const copy = cell.cloneNode(true);
        copy.querySelectorAll('.end').forEach(end => end.remove());
        return copy.textContent;
    }));";

#[test]
fn a_browser_shows_the_source_and_its_scores() {
    let tiny = trained();
    let page = scores_page(&tiny);
    let Some(browser) = Browser::find() else { return };
    let shown = look(&browser, &page, WIDE, SHOWN_TEXT);
    let hostile =
        HOSTILE.replace('\u{202e}', "[U+202E]").replace('\u{202c}', "[U+202C]").replace('\0', "\u{2400}");
    for (i, text) in
        [read(&tiny.path("vulnerable.py")), hostile, read(&tiny.path("long.js"))].iter().enumerate()
    {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(shown[i], json!(lines));
    }
    let title = look(&browser, &page, WIDE, "return document.title;");
    assert_eq!(title, "Security scores of 3 files");
    take_pictures(&browser, &page, "scores");
}

#[test]
fn a_browser_shows_where_the_guard_looked() {
    let tiny = trained();
    let page = scores_page(&tiny);
    let Some(browser) = Browser::find() else { return };
    let probe = "
        const tip = document.getElementById('tip');
        const before = tip.hidden;
        const token = document.querySelectorAll('.t')[5];
        token.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));
        const box = tip.getBoundingClientRect();
        const hovered = {text: tip.innerText, hidden: tip.hidden, described: token.getAttribute('aria-describedby'),
            inside: box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.width > 100,
            widths: [...tip.querySelectorAll('.fill')].map(fill => parseFloat(fill.style.width))};
        const first = document.querySelector('.t[tabindex=\"0\"]');
        first.focus();
        first.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
        const moved = [...document.querySelectorAll('.t')].indexOf(document.activeElement);
        document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}));
        return {before, hovered, moved, after: tip.hidden};";
    let seen = look(&browser, &page, WIDE, probe);
    assert_eq!((&seen["before"], &seen["after"], &seen["moved"]), (&json!(true), &json!(true), &json!(1)));
    let hovered = &seen["hovered"];
    assert_eq!((&hovered["hidden"], &hovered["inside"]), (&json!(false), &json!(true)), "{hovered}");
    assert_eq!(hovered["described"], "tip");
    let of_json = ok(&tiny, "score --model model --adapter run --json vulnerable.py");
    let of_json: Value = serde_json::from_str(of_json.trim()).unwrap();
    let (token, layers) = (&of_json["tokens"][5], of_json["layers"].as_array().unwrap());
    let text = hovered["text"].as_str().unwrap();
    assert!(text.contains(&format!("score {:.4}", token["score"].as_f64().unwrap())), "{text} for {token}");
    let widths: Vec<f64> = serde_json::from_value(hovered["widths"].clone()).unwrap();
    let weights: Vec<f64> = serde_json::from_value(token["layer_attention"].clone()).unwrap();
    assert_eq!((widths.len(), weights.len()), (layers.len(), layers.len()));
    for ((width, weight), layer) in widths.iter().zip(&weights).zip(layers) {
        assert!((width / 100.0 - weight).abs() < 1e-3, "{width} for {weight}");
        assert!(text.contains(&format!("layer {layer}")), "{text}");
    }
    // The picture of a token that is pointed at.
    let html = read(&page).replacen(
        "</body>",
        "<script>addEventListener('load', () => setTimeout(() => document.querySelectorAll('.t')[40]\
         .dispatchEvent(new PointerEvent('pointerover', {bubbles: true})), 300));</script></body>",
        1,
    );
    let pointed = tiny.path("pointed.html");
    std::fs::write(&pointed, html).unwrap();
    browser.screenshot(&pointed, WIDE, &pictures().join("scores-pointed.png"));
    browser.screenshot(&pointed, DARK, &pictures().join("scores-pointed-dark.png"));
}

/// Contrasts of the text with every background of the heat map.
const CONTRASTS: &str = "
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const luminance = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(byte => {
            const c = byte / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ink = luminance(getComputedStyle(document.documentElement).color);
    const page = getComputedStyle(document.documentElement).backgroundColor;
    return {page: luminance(page), contrasts: [...document.querySelectorAll('.ramp span')].map(step => {
        const own = getComputedStyle(step).backgroundColor;
        const behind = luminance(own === 'rgba(0, 0, 0, 0)' ? page : own);
        return (Math.max(ink, behind) + 0.05) / (Math.min(ink, behind) + 0.05);
    })};";

#[test]
fn pages_can_be_read_in_light_and_dark_wide_and_narrow() {
    let tiny = trained();
    let pages = [scores_page(&tiny), report_page(&tiny)];
    let Some(browser) = Browser::find() else { return };
    for page in &pages {
        let layout = "return {overflow: document.documentElement.scrollWidth - innerWidth,
            tops: [...document.querySelectorAll('.file, .chart')].slice(0, 2).map(e => e.getBoundingClientRect().top)};";
        for (view, abreast) in [(WIDE, true), (NARROW, false)] {
            let seen = look(&browser, page, view, layout);
            assert!(seen["overflow"].as_f64().unwrap() <= 0.0, "{}: {seen}", page.display());
            assert_eq!(seen["tops"][0] == seen["tops"][1], abreast, "{}: {seen}", page.display());
        }
        let background = |view| look(&browser, page, view, CONTRASTS)["page"].as_f64().unwrap();
        assert!(background(WIDE) > 0.9 && background(DARK) < 0.05, "{}", page.display());
    }
    for view in [WIDE, DARK] {
        let seen = look(&browser, &pages[0], view, CONTRASTS);
        let contrasts: Vec<f64> = serde_json::from_value(seen["contrasts"].clone()).unwrap();
        assert_eq!(contrasts.len(), 11);
        // The contrast that WCAG requires.
        assert!(contrasts.iter().all(|&contrast| contrast >= 4.5), "{contrasts:?}");
    }
}

#[test]
fn a_browser_shows_the_charts_of_a_run() {
    let tiny = trained();
    let page = report_page(&tiny);
    let Some(browser) = Browser::find() else { return };
    let probe = "
        const inside = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
            && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
        const charts = [...document.querySelectorAll('.chart')].map(chart => {
            const svg = chart.querySelector('svg[role=img]');
            const box = svg.getBoundingClientRect();
            const labels = [...svg.querySelectorAll('.tick')].map(label => label.getBoundingClientRect());
            const apart = labels.every((a, i) => labels.every((b, j) => i === j || a.right <= b.left || b.right <= a.left
                || a.bottom <= b.top + 3 || b.bottom <= a.top + 3));
            return {title: chart.querySelector('figcaption').textContent, apart, label: svg.getAttribute('aria-label'),
                inside: [...svg.querySelectorAll('path, circle, text')].every(e => inside(e.getBoundingClientRect(), box)),
                lines: [...svg.querySelectorAll('.line')].map(line => line.getTotalLength())};
        });
        return {charts, heads: [...document.querySelectorAll('h2')].map(h => h.textContent)};";
    let seen = look(&browser, &page, WIDE, probe);
    let charts = seen["charts"].as_array().unwrap();
    assert_eq!(charts.len(), 10);
    for chart in charts {
        assert_eq!((&chart["inside"], &chart["apart"]), (&json!(true), &json!(true)), "{chart}");
        let lines = chart["lines"].as_array().unwrap();
        assert!(!lines.is_empty() && lines.iter().all(|length| length.as_f64().unwrap() > 0.0), "{chart}");
    }
    let attention =
        charts.iter().find(|chart| chart["title"].as_str().unwrap().starts_with("Aggregator")).unwrap();
    let layers = tiny.load().config.num_hidden_layers.min(4);
    assert_eq!(attention["lines"].as_array().unwrap().len(), layers);
    for head in ["Curves", "Validation of 3 pairs", "Token statistics", "Configuration", "Environment"] {
        assert!(seen["heads"].as_array().unwrap().contains(&json!(head)), "{}", seen["heads"]);
    }
    take_pictures(&browser, &page, "report");
}

#[test]
fn a_report_says_what_the_run_was() {
    let tiny = trained();
    let page = read(&report_page(&tiny));
    for part in [
        "finished: 16 steps",
        "<th scope=\"row\" class=\"left\">lora_r</th><td class=\"left\">4</td>",
        "Most secure",
        "Most vulnerable",
        "tokens per second",
        "<dt>Computes in</dt><dd>f32</dd>",
        "started, 2",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    // `%` and `?` are the difference between the vulnerable and the secure functions of the data.
    let (_, tables) = page.split_once("Most secure").unwrap();
    let (secure, vulnerable) = tables.split_once("Most vulnerable").unwrap();
    assert!(secure.contains("<code>?</code>") && !secure.contains("<code>%</code>"), "{secure}");
    assert!(vulnerable.split("Configuration").next().unwrap().contains("<code>%</code>"), "{vulnerable}");
    assert_eq!(ok(&tiny, "report run --out -"), page);
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("url("));
}

#[test]
fn a_run_that_was_cut_off_has_a_report() {
    let tiny = trained();
    let report = || {
        let page = ok(&tiny, "report run --out -");
        assert!(page.ends_with("</html>\n"));
        page
    };
    let metrics = read(&tiny.path("run/metrics.jsonl"));
    // In the middle of a line, before the first checkpoint.
    let cut = metrics.match_indices('\n').nth(4).unwrap().0 + 20;
    std::fs::write(tiny.path("run/metrics.jsonl"), &metrics[..cut]).unwrap();
    for entry in std::fs::read_dir(tiny.path("run")).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            std::fs::rename(entry.path(), tiny.path(&format!("away-{name}"))).unwrap();
        }
    }
    let page = report();
    for part in ["going on, or cut off: step 3 of 16", "metrics.jsonl:6: ", "no adapter and no checkpoint"] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    // Only just begun.
    std::fs::write(tiny.path("run/metrics.jsonl"), "").unwrap();
    assert!(report().contains("no step done yet"));
    std::fs::remove_file(tiny.path("run/metrics.jsonl")).unwrap();
    std::fs::remove_file(tiny.path("run/environment.jsonl")).unwrap();
    assert!(report().contains("no step done yet"));
    // Numbers that are none, and a model that is not here any more.
    let mangled = metrics.replacen("\"total\":", "\"total\":null,\"was\":", 1);
    std::fs::write(tiny.path("run/metrics.jsonl"), mangled).unwrap();
    std::fs::rename(tiny.path("away-adapter"), tiny.path("run/adapter")).unwrap();
    std::fs::rename(tiny.path("model"), tiny.path("elsewhere")).unwrap();
    let page = report();
    assert!(page.contains("Texts of tokens are missing") && page.contains("Most vulnerable"), "{page}");
    assert!(!page.contains("NaN"));
    for damaged in ["adapter/deepguard_model.safetensors", "train_config.json"] {
        std::fs::write(tiny.path(&format!("run/{damaged}")), "{\"<b>\":").unwrap();
    }
    let page = report();
    assert!(page.contains("They cannot be shown") && page.contains("train_config.json: "), "{page}");
}

#[test]
fn a_browser_shows_a_probe() {
    let tiny = Tiny::new("llama");
    ok(&tiny, "probe --model model --data data --max-seq-len 160 --html probe.html");
    let page = tiny.path("probe.html");
    let Some(browser) = Browser::find() else { return };
    let chart = "return [document.querySelectorAll('.chart .band').length, document.querySelectorAll('.mark').length,
        document.querySelectorAll('table tbody tr').length, document.documentElement.scrollWidth <= innerWidth];";
    for looked in [WIDE, DARK, NARROW] {
        assert_eq!(look(&browser, &page, looked, chart), json!([2, 5 + 5 + 2, 5, true]));
    }
    take_pictures(&browser, &page, "probe");
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let tiny = Tiny::new("llama");
    for folder in ["model", "nowhere"] {
        let (code, stdout, stderr) = dg_run(&tiny, &["report", folder]);
        assert_eq!((code, stdout.as_str()), (3, ""), "{stderr}");
        assert!(stderr.contains(folder) && stderr.contains("train_config.json"), "{stderr}");
    }
}

#[test]
fn pages_name_nothing_outside_of_them() {
    let tiny = trained();
    let page = read(&scores_page(&tiny));
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("url("));
    assert!(page.contains("default-src 'none'") && page.contains("hostile &lt;b&gt;.py"));
    // The page itself ends two scripts: its code and its data.
    assert_eq!(page.matches("</script").count(), 2);
    let arguments = ["score", "--model", "model", "--adapter", "run", "vulnerable.py", "--html"];
    let (code, _, stderr) = dg_run(&tiny, &[&arguments[..], &["/proc/none/page.html"]].concat());
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("/proc/none/page.html"), "{stderr}");
}
