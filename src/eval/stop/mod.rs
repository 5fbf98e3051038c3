//! Where a completion ends: the function that the prompt has begun, and nothing behind it.
//!
//! Code is read character by character, the prompt first, so that a sample can be ended while it is decoded;
//! a text that is there already gets the same end.

mod c;
mod python;

use super::suite::Language;

/// Name and version of these rules, for the records of an evaluation.
pub const RULE: &str = "end-of-function/1";

/// Texts of tokens that end a text, which other programs leave in.
const MARKS: [&str; 9] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|EOT|>",
    "<|end|>",
    "<|file_sep|>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "</s>",
];

/// What a character means for the function that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is part of the function.
    Part,
    /// It ends a line of the function.
    LineEnd,
    /// The function ended before this line.
    Behind,
    /// The function ends with it.
    Last,
    /// It begins a fence: code has no backtick there.
    Fence,
}

/// A reader of one language.
#[derive(Clone, Debug)]
enum Reader {
    Python(python::Reader),
    C(c::Reader),
}

impl Reader {
    fn read(&mut self, character: char) -> Seen {
        match self {
            Reader::Python(reader) => reader.read(character),
            Reader::C(reader) => reader.read(character),
        }
    }

    fn prompt_ends(&mut self) {
        match self {
            Reader::Python(reader) => reader.prompt_ends(),
            Reader::C(reader) => reader.prompt_ends(),
        }
    }

    fn begin_line(&mut self) {
        match self {
            Reader::Python(reader) => reader.begin_line(),
            Reader::C(reader) => reader.begin_line(),
        }
    }
}

/// A completion as it comes.
#[derive(Clone, Debug)]
pub struct Completion {
    reader: Reader,
    text: String,
    /// Bytes of the text up to the last line of the function.
    lines: usize,
    /// Whether a line that opens a fence is being left out.
    skipping: bool,
    complete: bool,
}

impl Completion {
    /// The completion of a prompt, of which nothing has come.
    pub fn new(language: Language, prompt: &str) -> Self {
        let mut reader = match language {
            Language::Python => Reader::Python(python::Reader::default()),
            Language::C | Language::Cpp => Reader::C(c::Reader::default()),
            Language::JavaScript | Language::Go => Reader::C(c::Reader::with_backticks()),
        };
        for character in prompt.chars() {
            reader.read(character);
        }
        reader.prompt_ends();
        Completion { reader, text: String::new(), lines: 0, skipping: false, complete: false }
    }

    /// More text. Returns whether the completion is complete; what comes then is left out.
    pub fn push(&mut self, text: &str) -> bool {
        for character in text.chars() {
            if self.complete {
                break;
            }
            self.push_one(character);
        }
        self.complete
    }

    fn push_one(&mut self, character: char) {
        if self.skipping {
            self.skipping = character != '\n';
            return;
        }
        match self.reader.read(character) {
            Seen::Part => self.text.push(character),
            Seen::LineEnd => {
                self.text.push(character);
                self.lines = self.text.len();
            }
            Seen::Last => {
                self.text.push(character);
                self.complete = true;
            }
            Seen::Behind => {
                self.text.truncate(self.lines);
                self.complete = true;
            }
            Seen::Fence => self.fence(),
        }
    }

    /// A fence before any code is left out, and one behind code ends it.
    fn fence(&mut self) {
        if self.text.trim().is_empty() {
            self.text.truncate(self.text.rfind('\n').map_or(0, |at| at + 1));
            self.reader.begin_line();
            self.skipping = true;
        } else {
            self.text.truncate(self.lines);
            self.complete = true;
        }
    }

    /// What came, up to the end of the function.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The part of a completion that belongs to the function which the prompt has begun. Texts of tokens that end
/// a text, and fences around the code, are left out.
pub fn cut(language: Language, prompt: &str, completion: &str) -> String {
    let mut completion = completion;
    while let Some(shorter) = MARKS.iter().find_map(|mark| completion.strip_suffix(mark)) {
        completion = shorter;
    }
    let mut all = Completion::new(language, prompt);
    all.push(completion);
    all.finish()
}
