//! The end of a function in C, and in languages whose blocks have braces as well: the brace that closes its
//! body.

use super::Seen;

/// Where in the code a character stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Code,
    /// Behind a slash, in code or in a directive.
    Slash {
        directive: bool,
    },
    LineComment {
        escaped: bool,
    },
    Comment {
        star: bool,
        directive: bool,
    },
    Text {
        quote: char,
        escaped: bool,
    },
    /// In a line of the preprocessor.
    Directive {
        escaped: bool,
    },
}

/// Reads C.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    place: Place,
    /// Braces that are open, other than those of linkage specifications.
    depth: usize,
    /// Depths at which the conditions of the preprocessor that are open began.
    conditions: Vec<usize>,
    /// The word of a directive.
    word: String,
    /// Whether there was code since the last line break.
    busy: bool,
    /// The last character of code that is no white space.
    last: char,
    /// Whether a character of code came since the last line of the function ended.
    has_code: bool,
    /// Whether the prompt has ended.
    completes: bool,
    /// Whether a backtick opens a string of many lines, and there is no preprocessor.
    backticks: bool,
}

impl Reader {
    /// For JavaScript and Go.
    pub(super) fn with_backticks() -> Self {
        Reader { backticks: true, ..Reader::default() }
    }

    pub(super) fn prompt_ends(&mut self) {
        self.completes = true;
    }

    /// Forgets the line that has begun.
    pub(super) fn begin_line(&mut self) {
        self.busy = false;
    }

    pub(super) fn read(&mut self, c: char) -> Seen {
        match self.place {
            Place::Code => return self.code(c),
            Place::Slash { directive } => return self.slash(c, directive),
            Place::LineComment { escaped } => {
                if c == '\n' && !escaped {
                    self.place = Place::Code;
                    return self.line_break();
                }
                self.place = Place::LineComment { escaped: c == '\\' || c == '\r' && escaped };
            }
            Place::Comment { star, directive } => self.comment(c, star, directive),
            Place::Text { quote, escaped } => return self.text(c, quote, escaped),
            Place::Directive { escaped } => return self.directive(c, escaped),
        }
        Seen::Part
    }

    fn code(&mut self, c: char) -> Seen {
        let first = !self.busy && !c.is_whitespace();
        if first && c == '`' && !self.backticks {
            return Seen::Fence;
        }
        if first && c == '#' && !self.backticks {
            self.word.clear();
            self.place = Place::Directive { escaped: false };
            return Seen::Part;
        }
        match c {
            '\n' => return self.line_break(),
            '/' => self.place = Place::Slash { directive: false },
            '"' => self.place = Place::Text { quote: c, escaped: false },
            '`' if self.backticks => self.place = Place::Text { quote: c, escaped: false },
            // Behind a digit it separates digits.
            '\'' if !self.last.is_ascii_digit() => self.place = Place::Text { quote: c, escaped: false },
            // `extern "C" {`
            '{' if self.depth == 0 && self.last == '"' => {}
            '{' => self.depth += 1,
            '}' => {
                let closes = self.depth == 1;
                self.depth = self.depth.saturating_sub(1);
                if closes && self.completes {
                    return Seen::Last;
                }
            }
            _ => {}
        }
        if !c.is_whitespace() {
            (self.busy, self.last, self.has_code) = (true, c, true);
        }
        Seen::Part
    }

    fn line_break(&mut self) -> Seen {
        self.busy = false;
        if std::mem::take(&mut self.has_code) { Seen::LineEnd } else { Seen::Part }
    }

    /// The second character of what may be a comment.
    fn slash(&mut self, c: char, directive: bool) -> Seen {
        match c {
            '*' => self.place = Place::Comment { star: false, directive },
            '/' => self.place = Place::LineComment { escaped: false },
            _ if directive => {
                self.place = Place::Directive { escaped: false };
                return self.directive(c, false);
            }
            _ => {
                self.place = Place::Code;
                return self.code(c);
            }
        }
        if c == '/' && directive {
            self.end_directive();
        }
        Seen::Part
    }

    fn comment(&mut self, c: char, star: bool, directive: bool) {
        self.place = match c {
            '/' if star && directive => Place::Directive { escaped: false },
            '/' if star => Place::Code,
            _ => Place::Comment { star: c == '*', directive },
        };
    }

    fn text(&mut self, c: char, quote: char, escaped: bool) -> Seen {
        if c == '\n' && !escaped && quote != '`' {
            // A string without an end ends with its line.
            self.place = Place::Code;
            return self.line_break();
        }
        if c == quote && !escaped {
            (self.place, self.last) = (Place::Code, c);
        } else {
            self.place = Place::Text { quote, escaped: c == '\\' && !escaped || c == '\r' && escaped };
        }
        Seen::Part
    }

    fn directive(&mut self, c: char, escaped: bool) -> Seen {
        match c {
            '\n' if !escaped => {
                self.end_directive();
                self.place = Place::Code;
                self.busy = false;
                // Lines of the preprocessor in a body are part of it.
                return if self.depth > 0 { Seen::LineEnd } else { Seen::Part };
            }
            '/' => self.place = Place::Slash { directive: true },
            _ => {
                self.word.push(c);
                self.place = Place::Directive { escaped: c == '\\' || c == '\r' && escaped };
            }
        }
        Seen::Part
    }

    /// The alternatives of a condition begin at the same depth: one of them is compiled.
    fn end_directive(&mut self) {
        let word: String = self.word.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        match word.as_str() {
            "if" | "ifdef" | "ifndef" => self.conditions.push(self.depth),
            "else" | "elif" | "elifdef" | "elifndef" => {
                if let Some(&depth) = self.conditions.last() {
                    self.depth = depth;
                }
            }
            "endif" => {
                self.conditions.pop();
            }
            _ => {}
        }
        self.word.clear();
    }
}
