//! The end of a Python function: the first line of code at or below the indentation of its `def`.

use super::Seen;

/// Columns between tab stops, as Python counts them.
const TAB: usize = 8;

/// Longest beginning of a line in which `def` is looked for.
const MOST_HEAD: usize = 16;

/// Where in the code a character stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the white space that begins a line.
    #[default]
    Indent,
    Code,
    /// Behind a backslash.
    Escape,
    Comment,
    /// In the quotes that open a string: so many so far.
    Opening {
        quote: char,
        count: u8,
    },
    /// In a string, behind so many of the quotes that would end it.
    Text {
        quote: char,
        triple: bool,
        escaped: bool,
        count: u8,
    },
}

/// Reads Python.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    place: Place,
    /// Column of the next character, in white space that begins a line.
    column: usize,
    /// Brackets that are open.
    depth: usize,
    /// Whether there was nothing but white space since the last line break.
    blank: bool,
    /// The beginning of a logical line.
    head: String,
    /// Indentation of that line.
    indentation: usize,
    /// Indentations of the functions that the prompt is in, outermost first: that is the one to be completed.
    functions: Vec<usize>,
    /// Whether the prompt has ended.
    completes: bool,
}

impl Reader {
    pub(super) fn prompt_ends(&mut self) {
        self.completes = true;
    }

    /// Forgets the line that has begun.
    pub(super) fn begin_line(&mut self) {
        (self.place, self.column, self.blank) = (Place::Indent, 0, true);
        self.head.clear();
    }

    pub(super) fn read(&mut self, c: char) -> Seen {
        let blank = self.blank;
        self.blank = c == '\n' || blank && c.is_whitespace();
        match self.place {
            Place::Indent => self.indent(c),
            Place::Code if c == '`' && blank => Seen::Fence,
            Place::Code => self.code(c),
            Place::Escape => {
                if c != '\r' {
                    self.place = Place::Code;
                }
                Seen::Part
            }
            Place::Comment if c == '\n' => self.line_break(),
            Place::Comment => Seen::Part,
            Place::Opening { quote, count } => self.opening(c, quote, count),
            Place::Text { .. } => self.text(c),
        }
    }

    fn indent(&mut self, c: char) -> Seen {
        match c {
            ' ' => self.column += 1,
            '\t' => self.column = (self.column / TAB + 1) * TAB,
            '\n' | '\x0c' => self.column = 0,
            '\r' => {}
            '#' => self.place = Place::Comment,
            '`' => return Seen::Fence,
            _ => return self.begin_code(c),
        }
        Seen::Part
    }

    /// The first character of a logical line.
    fn begin_code(&mut self, c: char) -> Seen {
        self.indentation = self.column;
        if !self.completes {
            self.functions.retain(|&function| function < self.indentation);
        } else if self.functions.first().is_some_and(|&function| self.indentation <= function) {
            return Seen::Behind;
        }
        self.place = Place::Code;
        self.code(c)
    }

    fn code(&mut self, c: char) -> Seen {
        self.look_for_def(c);
        match c {
            '\n' => return self.line_break(),
            '#' => self.place = Place::Comment,
            '\\' => self.place = Place::Escape,
            '"' | '\'' => self.place = Place::Opening { quote: c, count: 1 },
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Seen::Part
    }

    /// Notices a line that begins a function. A completion may begin the only one there is.
    fn look_for_def(&mut self, c: char) {
        if self.head.len() > MOST_HEAD {
            return;
        }
        self.head.push(c);
        let mut words = self.head.split_ascii_whitespace();
        let word = words.next().filter(|&word| word != "async").or_else(|| words.next());
        let is_def = word == Some("def") && c.is_ascii_whitespace();
        if is_def && (!self.completes || self.functions.is_empty()) {
            self.functions.push(self.indentation);
            self.head.push_str(&" ".repeat(MOST_HEAD));
        }
    }

    /// A line break outside of strings ends the logical line, unless a bracket is open.
    fn line_break(&mut self) -> Seen {
        if self.depth > 0 {
            self.place = Place::Code;
            return Seen::Part;
        }
        // A line of a comment alone is none of the function's: it may belong to what follows.
        let has_code = !self.head.is_empty();
        self.begin_line();
        if has_code { Seen::LineEnd } else { Seen::Part }
    }

    fn opening(&mut self, c: char, quote: char, count: u8) -> Seen {
        self.place = match (c == quote, count) {
            (true, 1) => Place::Opening { quote, count: 2 },
            (true, _) => Place::Text { quote, triple: true, escaped: false, count: 0 },
            (false, 1) => {
                self.place = Place::Text { quote, triple: false, escaped: false, count: 0 };
                return self.text(c);
            }
            (false, _) => {
                self.place = Place::Code;
                return self.code(c);
            }
        };
        Seen::Part
    }

    fn text(&mut self, c: char) -> Seen {
        let Place::Text { quote, triple, escaped, count } = self.place else { return Seen::Part };
        let text = |escaped, count| Place::Text { quote, triple, escaped, count };
        self.place = match c {
            '\r' => text(escaped, 0),
            _ if escaped => text(false, 0),
            '\\' => text(true, 0),
            // A string without an end ends with its line.
            '\n' if !triple => return self.line_break(),
            _ if c == quote && (!triple || count == 2) => Place::Code,
            _ if c == quote => text(false, count + 1),
            _ => text(false, 0),
        };
        Seen::Part
    }
}
