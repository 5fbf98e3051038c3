//! Text as HTML, and the frame of a page that needs nothing but itself.

use std::fmt::Write;

/// Colours and type that all pages share.
const BASE_STYLE: &str = include_str!("base.css");

/// What may be loaded: nothing. Style and script stand in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";

/// A whole page.
pub struct Page<'a> {
    /// Plain text.
    pub title: &'a str,
    /// CSS beside the shared one.
    pub style: &'a str,
    /// HTML of `<main>`.
    pub body: &'a str,
    /// JSON for the script, in an element with the id `data`.
    pub data: Option<&'a serde_json::Value>,
    /// JavaScript.
    pub script: &'a str,
}

impl Page<'_> {
    /// The page as a file.
    pub fn to_html(&self) -> String {
        let Page { style, body, script, .. } = self;
        let title = escape(self.title);
        // No string of JSON can end the element: `</script` has a `<`.
        let data = self.data.map(|data| data.to_string().replace('<', "\\u003c"));
        let data =
            data.map(|data| format!("<script type=\"application/json\" id=\"data\">{data}</script>\n"));
        let data = data.unwrap_or_default();
        let script = if script.is_empty() { String::new() } else { format!("<script>\n{script}</script>\n") };
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"generator\" content=\"dg-run {version}\">\n\
             <title>{title}</title>\n<style>\n{BASE_STYLE}{style}</style>\n</head>\n<body>\n\
             <main>\n{body}</main>\n{data}{script}</body>\n</html>\n"
        )
    }
}

/// Text for an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

/// As [`escape`], with a visible sign for every character that would otherwise not be seen, or that would put
/// its neighbours in another order. Tabs and line feeds stay.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match sign(c) {
            // A string takes whatever is written to it.
            Some(sign) => {
                let _ = write!(out, "<span class=\"sign\" title=\"U+{:04X}\">{sign}</span>", u32::from(c));
            }
            None => push_escaped(&mut out, c),
        }
    }
    out
}

/// A text for a terminal, with the same signs: nothing in it moves the cursor, or sets colours or titles.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match sign(c) {
            Some(sign) => out.push_str(&sign),
            None => out.push(c),
        }
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        // A parser replaces it, or drops it.
        '\0' => out.push('\u{2400}'),
        // A parser makes it a line feed.
        '\r' => out.push_str("&#13;"),
        other => out.push(other),
    }
}

/// What stands for a character that has no shape of its own.
fn sign(c: char) -> Option<String> {
    match u32::from(c) {
        0x09 | 0x0a => None,
        // Unicode has pictures of the ASCII controls.
        code @ 0..=0x1f => char::from_u32(0x2400 + code).map(String::from),
        0x7f => Some("\u{2421}".to_owned()),
        code @ (0x80..=0x9f
        | 0xad
        | 0x61c
        | 0x180e
        | 0x200b..=0x200f
        | 0x2028..=0x202e
        | 0x2060..=0x206f
        | 0xfeff
        | 0xfff9..=0xfffb
        | 0xe0000..=0xe007f) => Some(format!("[U+{code:04X}]")),
        _ => None,
    }
}

/// A two-column table of terms and what they are; the values are HTML.
pub fn facts(rows: &[(&str, String)]) -> String {
    let row = |(term, value): &(&str, String)| format!("<dt>{}</dt><dd>{value}</dd>\n", escape(term));
    format!("<dl class=\"facts\">\n{}</dl>\n", rows.iter().map(row).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(
            escape("<a b='c' d=\"e\">&\r\0"),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;&#13;\u{2400}"
        );
        assert_eq!(visible("\t</script>\n"), "\t&lt;/script&gt;\n");
    }

    #[test]
    fn what_cannot_be_seen_gets_a_sign() {
        for (c, shown) in
            [('\r', "\u{240d}"), ('\0', "\u{2400}"), ('\u{202e}', "[U+202E]"), ('\u{200b}', "[U+200B]")]
        {
            assert!(visible(&c.to_string()).contains(&format!(">{shown}</span>")), "{c:?}");
        }
        for of in [visible, printable] {
            assert_eq!(of("déjà vu\t漢字 🦀\n"), "déjà vu\t漢字 🦀\n");
        }
        assert_eq!(printable("<\x1b]0;title\x07\u{202e}"), "<\u{241b}]0;title\u{2407}[U+202E]");
    }

    #[test]
    fn data_cannot_end_its_element() {
        let data = serde_json::json!(["</script><script>alert(1)</script>", "<!--"]);
        let page = Page { title: "<t>", style: "", body: "", data: Some(&data), script: "" }.to_html();
        assert_eq!(page.matches("</script").count(), 1);
        assert!(page.contains("<title>&lt;t&gt;</title>"));
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap(), data);
    }
}
