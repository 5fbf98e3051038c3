//! The page of evaluations.

use std::path::PathBuf;

use deepguard::eval::compare::{Run, compare};
use deepguard::eval::verdict::Verdict;
use deepguard::report::eval::page;
use serde_json::json;

use crate::browser::Browser;
use crate::hand_made::{HandMade, Is};
use crate::{DARK, HOSTILE, NARROW, WIDE, look, take_pictures};

/// Runs of three methods, one of which writes code against the page.
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
            lines.push(made.lines_of(scenario, i as u32, text, verdict));
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

#[test]
fn a_browser_shows_an_evaluation() {
    let made = HandMade::new();
    let page = hostile_runs(&made);
    let Some(browser) = Browser::find() else { return };
    let probe = "
        const text = (id) => document.getElementById(id).textContent;
        const choose = (id, value) => {
            const select = document.getElementById(id);
            select.value = value;
            select.dispatchEvent(new Event('change', {bubbles: true}));
        };
        const first = text('which');
        document.getElementById('next').click();
        const second = text('which');
        document.querySelectorAll('.pick')[5].click();
        const picked = document.getElementById('scenario').value;
        choose('run', '2');
        const hostile = text('completion');
        choose('outcome', 'secure');
        const secure = [text('which'), text('completion'), text('reason')];
        choose('run', '0');
        choose('outcome', 'unknown');
        const svgs = [...document.querySelectorAll('svg.rates')];
        return {first, second, picked, hostile, secure, none: text('which'), title: document.title,
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
        assert_eq!(seen["secure"][1], "\u{240d}\n\u{241b}[31m\u{2407}\n");
        assert_eq!(seen["secure"][2], "<script>document.title='owned'</script>");
        assert_eq!(seen["none"], "There is no such sample.");
        for head in ["Methods", "Families", "Unknown and flaky", "Samples", "Seal"] {
            assert!(seen["heads"].as_array().unwrap().contains(&json!(head)), "{}", seen["heads"]);
        }
    }
    take_pictures(&browser, &page, "evaluation");
}
