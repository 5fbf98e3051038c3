//! Text to tokens.

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Names, numbers, opcodes and directives, dots and colons included.
    Word(String),
    /// `"…"`
    Text(String),
    /// Any other character.
    Sign(char),
}

/// A token and its line, from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The token.
    pub token: Token,
    /// Its line.
    pub line: u32,
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.' | ':')
}

/// Splits a text into tokens.
pub fn tokens(text: &str) -> Result<Vec<Located>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(c) = rest.chars().next() {
        let at = line;
        let taken = if c == '\n' {
            line += 1;
            1
        } else if c.is_whitespace() || c == '\0' {
            c.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or(format!("line {line}: comment without an end"))? + 2;
            line += newlines(&rest[..end]);
            end
        } else if c == '"' {
            let end = rest[1..].find('"').ok_or(format!("line {line}: text without an end"))? + 1;
            line += newlines(&rest[..end]);
            tokens.push(Located { token: Token::Text(rest[1..end].to_owned()), line: at });
            end + 1
        } else if in_word(c) {
            let mut end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            if c == '.' {
                // Directives may follow each other without a blank: `.reg.b32`.
                end = rest[1..end].find('.').map_or(end, |dot| dot + 1);
            }
            tokens.push(Located { token: Token::Word(rest[..end].to_owned()), line: at });
            end
        } else {
            tokens.push(Located { token: Token::Sign(c), line: at });
            c.len_utf8()
        };
        rest = &rest[taken..];
    }
    Ok(tokens)
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|&b| b == b'\n').count() as u32
}
