//! The page of evaluations.

use std::path::PathBuf;

use deepguard::eval::compare::{Run, compare};
use deepguard::eval::samples::ScoredPiece;
use deepguard::eval::verdict::Verdict;
use deepguard::report::eval::page;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::hand_made::{HandMade, Is};
use crate::{DARK, HOSTILE, NARROW, WIDE, look, take_pictures};

/// A piece for every character, with scores from 0.2 to 0.8.
fn scores_of(text: &str) -> Vec<ScoredPiece> {
    let last = text.chars().count() - 1;
    let score = |i: usize| 0.2 + 0.6 * i as f32 / last as f32;
    text.chars()
        .enumerate()
        .map(|(i, c)| ScoredPiece { bytes: c.len_utf8() as u32, score: score(i) })
        .collect()
}

/// Runs of three methods, one of which writes code against the page, two samples of which a guard has scored.
fn hostile_runs(made: &HandMade) -> PathBuf {
    made.base_and_guard();
    let mut lines = Vec::new();
    for scenario in 0..6 {
        let endless = format!("\n    return [{}]\n", "'0123456789', ".repeat(3000));
        let texts = [
            HOSTILE,
            "\n    return \"</pre><img src=x onerror=alert(1)>\"\n",
            &endless,
            "\r\n\x1b[31m\x07\n",
        ];
        for (i, text) in texts.into_iter().enumerate() {
            let is = [Is::Unknown, Is::Insecure, Is::Unparsed, Is::Secure][i];
            let reason = format!("{}<script>document.title='owned'</script>", is.verdict().reason);
            let verdict = Verdict { reason, ..is.verdict() };
            let (mut sample, verdict) = made.lines_of(scenario, i as u32, text, verdict);
            sample.scores = match i {
                0 => Some(scores_of(text)),
                // Longer than the text.
                1 => Some([4, 0, u32::MAX, 7].map(|bytes| ScoredPiece { bytes, score: 0.5 }).to_vec()),
                _ => None,
            };
            lines.push((sample, verdict));
        }
    }
    made.write("hostile", &lines);
    let sampling = json!({"method": "<b>hostile</b>\u{202e}\"'&", "preset": "<i>", "seed": 1});
    std::fs::write(made.path("hostile/sampling.json"), sampling.to_string()).unwrap();
    made.seal("hostile").unwrap();
    let runs = Run::open_all(&["base", "guard", "hostile"].map(|name| made.path(name))).unwrap();
    let path = made.path("eval.html");
    std::fs::write(&path, page(&runs, &compare(&runs).unwrap())).unwrap();
    path
}

#[test]
fn code_of_models_is_no_markup() {
    let made = HandMade::new();
    let page = std::fs::read_to_string(hostile_runs(&made)).unwrap();
    // The page's own script and its data.
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
    for markup in ["<img", "<b>hostile", "onerror=alert(1)>\"", "http:", "https:", "url(", "\x1b", "\u{202e}"]
    {
        assert!(!page.contains(markup), "{markup:?} is in the page");
    }
    assert!(page.contains("&lt;b&gt;hostile&lt;/b&gt;") && page.contains("CodeQL"));
    assert!(page.contains("default-src 'none'"));
}

/// The pieces of the samples of the page's first scenario.
fn pieces(page: &str) -> Vec<Vec<Value>> {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let samples = data["scenarios"][0]["samples"].as_array().unwrap();
    samples.iter().map(|sample| sample["pieces"].as_array().unwrap().clone()).collect()
}

#[test]
fn samples_have_the_heat_map_of_their_guard() {
    let made = HandMade::new();
    let page = std::fs::read_to_string(hostile_runs(&made)).unwrap();
    let all = pieces(&page);
    // Four different ones each.
    assert_eq!((all.len(), all[0].len(), &all[0][0]), (12, 1, &json!(["\n    return 0\n"])));
    let scored = &all[8];
    assert_eq!(scored.len(), HOSTILE.chars().count());
    assert_eq!((&scored[0], &scored[1]), (&json!(["d", 0, 0.2]), &json!(["e", 0, 0.2046])));
    assert_eq!(scored.last().unwrap(), &json!(["l", 10, 0.8]));
    assert_eq!(all[9][0], json!(["\n   ", 5, 0.5]));
    assert_eq!(all[9].len(), 2, "{:?}", all[9]);
    assert!(all[10].len() == 1 && all[10][0][0].as_str().unwrap().ends_with("more bytes]"));
    assert!(page.contains("0.2000, less secure") && page.contains("0.8000, more secure"));
    // Nothing of it where nothing is scored.
    let base = std::fs::read_to_string(plain_page(&made)).unwrap();
    assert!(!base.contains("less secure") && !base.contains("id=\"heat\""));
}

/// The page of a run without scores.
fn plain_page(made: &HandMade) -> PathBuf {
    let path = made.path("plain.html");
    std::fs::write(&path, page(&Run::open_all(&[made.path("base")]).unwrap(), &[])).unwrap();
    path
}

#[test]
fn a_browser_shows_an_evaluation() {
    let made = HandMade::new();
    let page = hostile_runs(&made);
    let plain = plain_page(&made);
    let Some(browser) = Browser::find() else { return };
    let shown = look(&browser, &plain, WIDE, "return document.getElementById('completion').textContent;");
    assert_eq!(shown, "\n    return 0\n");
    let probe = "
        const text = (id) => document.getElementById(id).textContent;
        const choose = (id, value) => {
            const select = document.getElementById(id);
            select.value = value;
            select.dispatchEvent(new Event('change', {bubbles: true}));
        };
        const first = text('which');
        const unscored = [document.getElementById('heat').hidden, document.querySelectorAll('#completion .t').length];
        document.getElementById('next').click();
        const second = text('which');
        document.querySelectorAll('.pick')[5].click();
        const picked = document.getElementById('scenario').value;
        choose('run', '2');
        const hostile = text('completion');
        const [heat, tokens] = [document.getElementById('heat'), [...document.querySelectorAll('#completion .t')]];
        const coloured = [unscored, heat.hidden, heat.querySelectorAll('.ramp span').length, tokens.length,
            tokens[0].title, tokens[0].className, getComputedStyle(tokens[0]).backgroundColor
                === getComputedStyle(heat.querySelector('.ramp span')).backgroundColor];
        choose('outcome', 'secure');
        const secure = [text('which'), text('completion'), text('reason')];
        choose('run', '0');
        choose('outcome', 'unknown');
        const svgs = [...document.querySelectorAll('svg.rates')];
        return {first, second, picked, hostile, secure, coloured, none: text('which'), title: document.title,
            bounds: svgs.every(svg => { const box = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('circle')].every(dot => { const b = dot.getBoundingClientRect();
                    return b.left >= box.left - 1 && b.right <= box.right + 1; }); }),
            svgs: svgs.length, dots: document.querySelectorAll('.dots circle').length,
            heads: [...document.querySelectorAll('h2')].map(h => h.textContent),
            rows: document.querySelectorAll('table.methods tbody tr').length,
            images: document.images.length, overflow: document.documentElement.scrollWidth - innerWidth,
            reachable: [...document.querySelectorAll('.pick, select, #next, details summary, .scroll, pre')].every(e => e.tabIndex >= 0)};";
    for view in [WIDE, DARK, NARROW] {
        let seen = look(&browser, &page, view, probe);
        assert_eq!(seen["title"], "Evaluation of 3 methods");
        assert!(seen["overflow"].as_f64().unwrap() <= 0.0, "{}", seen["overflow"]);
        assert_eq!(
            (&seen["bounds"], &seen["reachable"], &seen["images"]),
            (&json!(true), &json!(true), &json!(0))
        );
        // Three groups of three methods, and three dots for each of six scenarios.
        assert_eq!((&seen["rows"], &seen["dots"]), (&json!(9), &json!(18)), "{seen}");
        assert!(
            seen["first"].as_str().unwrap().starts_with("insecure 1 of 12 different ones; base, sample 0"),
            "{seen}"
        );
        assert!(seen["second"].as_str().unwrap().starts_with("insecure 2 of"), "{seen}");
        assert_eq!(seen["picked"], "3", "families stand in the order of their names");
        let hostile = HOSTILE.replace('\u{202e}', "[U+202E]").replace('\u{202c}', "[U+202C]");
        let hostile = hostile.replace('\0', "\u{2400}").replace('\r', "\u{240d}");
        assert_eq!(seen["hostile"], hostile);
        let tokens = HOSTILE.chars().count();
        assert_eq!(
            seen["coloured"],
            json!([[true, 0], false, 11, tokens, "score 0.2000", "t h0", true]),
            "{}",
            seen["coloured"]
        );
        assert_eq!(seen["secure"][1], "\u{240d}\n\u{241b}[31m\u{2407}\n");
        assert_eq!(seen["secure"][2], "<script>document.title='owned'</script>");
        assert_eq!(seen["none"], "There is no such sample.");
        for head in ["Methods", "Families", "Unknown and flaky", "Samples", "Seal"] {
            assert!(seen["heads"].as_array().unwrap().contains(&json!(head)), "{}", seen["heads"]);
        }
    }
    take_pictures(&browser, &page, "evaluation");
    // The picture of code with its scores.
    let html = std::fs::read_to_string(&page).unwrap().replacen(
        "</body>",
        "<script>const run = document.getElementById('run'); run.value = '2'; run.dispatchEvent(new Event('change')); \
         document.querySelectorAll('main > :not(#viewer):not(.viewer)').forEach(e => e.remove());</script></body>",
        1,
    );
    let viewer = made.path("viewer.html");
    std::fs::write(&viewer, html).unwrap();
    take_pictures(&browser, &viewer, "evaluation-viewer");
}
