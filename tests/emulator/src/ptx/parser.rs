//! Modules, functions and variables.

use super::ast::{Function, Init, Module, Operand, Space, Variable};
use super::lexer::{Located, Token, tokens};

/// Parses a module.
///
/// # Errors
/// A message with the line for anything that is not understood.
pub fn parse(text: &str) -> Result<Module> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let mut module = Module::default();
    while parser.peek().is_some() {
        parser.top_level(&mut module)?;
    }
    if module.target.is_empty() {
        return Err(format!(
            "line {}: expected a .target directive, found none: is this PTX?",
            parser.line().max(1)
        ));
    }
    Ok(module)
}

/// Alignment that the device gives allocations.
const GLOBAL_ALIGN: usize = 512;
/// Alignment in any other space at most.
const MOST_ALIGN: usize = 1 << 16;
/// Bytes of all parameters at most, as on the device.
const MOST_PARAM: usize = 32_764;
/// Operands in each other at most.
const MOST_DEPTH: usize = 16;

/// A place in the tokens.
pub(super) struct Parser {
    tokens: Vec<Located>,
    at: usize,
    /// Operands in each other.
    depth: usize,
}

pub(super) type Result<T> = std::result::Result<T, String>;

impl Parser {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    /// Line of the next token, or of the last one.
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.line)
    }

    pub(super) fn next(&mut self) -> Result<Token> {
        let Some(token) = self.peek().cloned() else {
            return self.error("the text ends in the middle of something");
        };
        self.at += 1;
        Ok(token)
    }

    pub(super) fn error<T>(&self, message: impl std::fmt::Display) -> Result<T> {
        Err(format!("line {}: {message}", self.line()))
    }

    pub(super) fn word(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => {
                self.at -= 1;
                self.error(format!("expected a name, found {other:?}"))
            }
        }
    }

    pub(super) fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    pub(super) fn is(&self, sign: char) -> bool {
        self.peek() == Some(&Token::Sign(sign))
    }

    pub(super) fn take(&mut self, sign: char) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, sign: char) -> Result<()> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.peek().cloned();
        self.error(format!("expected '{sign}', found {found:?}"))
    }

    /// Skips the rest of the line.
    pub(super) fn skip_line(&mut self, line: u32) {
        while self.tokens.get(self.at).is_some_and(|t| t.line == line) {
            self.at += 1;
        }
    }

    pub(super) fn unsigned(&mut self) -> Result<u64> {
        let word = self.word()?;
        integer(&word).and_then(|v| u64::try_from(v).ok()).map_or_else(
            || {
                self.at -= 1;
                self.error(format!("expected a number, found {word}"))
            },
            Ok,
        )
    }

    fn top_level(&mut self, module: &mut Module) -> Result<()> {
        let line = self.line();
        let word = self.word()?;
        match word.as_str() {
            ".version" | ".address_size" => self.skip_line(line),
            ".target" => {
                module.target = self.word()?;
                let number = module.target.strip_prefix("sm_").map(|n| n.trim_end_matches(['a', 'f']));
                if !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                    return self.error(format!("target {} is not supported", module.target));
                }
                self.skip_line(line);
            }
            ".file" => {
                let number = self.unsigned()? as u32;
                if let Token::Text(name) = self.next()? {
                    module.files.insert(number, name);
                }
                self.skip_line(line);
            }
            ".section" => self.skip_braces()?,
            ".pragma" => {
                self.next()?;
                self.expect(';')?;
            }
            ".visible" | ".weak" | ".common" => {}
            ".extern" => self.external()?,
            ".entry" | ".func" => {
                let (function, has_body) = self.function(word == ".entry")?;
                match has_body {
                    true => module.functions.push(function),
                    false => module.declared.push(function.name),
                }
            }
            _ => match space(&word) {
                Some(space) => self.variables(space, &mut module.variables)?,
                None => {
                    self.at -= 1;
                    return self.error(format!("{word} is not supported at the top level"));
                }
            },
        }
        Ok(())
    }

    /// Dynamic shared memory and functions are defined elsewhere; other variables would have to be linked.
    fn external(&mut self) -> Result<()> {
        let name = self.tokens[self.at..].iter().find_map(|t| match &t.token {
            Token::Word(word)
                if !word.starts_with('.') && !word.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                Some(word)
            }
            _ => None,
        });
        match self.peek_word() {
            Some(".global" | ".const") => {
                let name = name.cloned().unwrap_or_default();
                self.error(format!("variable {name} is defined in another module: linking is not supported"))
            }
            _ => Ok(()),
        }
    }

    fn skip_braces(&mut self) -> Result<()> {
        while !self.take('{') {
            self.next()?;
        }
        while !self.take('}') {
            self.next()?;
        }
        Ok(())
    }

    fn function(&mut self, entry: bool) -> Result<(Function, bool)> {
        let mut function = Function { entry, ..Function::default() };
        if self.is('(') {
            function.returns = self.params()?;
        }
        function.name = self.word()?;
        if self.is('(') {
            function.params = self.params()?;
        }
        loop {
            if self.take(';') {
                return Ok((function, false));
            }
            if self.take('{') {
                function.body = self.body()?;
                return Ok((function, true));
            }
            self.function_directive(&mut function)?;
        }
    }

    fn function_directive(&mut self, function: &mut Function) -> Result<()> {
        let word = self.word()?;
        match word.as_str() {
            ".maxntid" => function.max_threads = Some(self.triple()?),
            ".reqntid" => function.required_threads = Some(self.triple()?),
            ".reqnctapercluster" => function.required_cluster = Some(self.triple()?),
            ".minnctapersm" => function.min_blocks = Some(self.count()?),
            ".maxnreg" => function.max_registers = Some(self.count()?),
            ".maxclusterrank" => {
                self.unsigned()?;
            }
            ".noreturn" | ".explicitcluster" => {}
            ".pragma" => {
                self.next()?;
                self.expect(';')?;
            }
            _ => return self.error(format!("{word} is not supported on a function")),
        }
        Ok(())
    }

    /// A number of registers or blocks.
    fn count(&mut self) -> Result<u32> {
        match self.unsigned()? {
            number @ 1..=1024 => Ok(number as u32),
            number => self.error(format!("expected 1 to 1024 registers or blocks, found {number}")),
        }
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut triple = [1; 3];
        for (i, value) in triple.iter_mut().enumerate() {
            if i > 0 && !self.take(',') {
                break;
            }
            let number = self.unsigned()?;
            *value = match u32::try_from(number) {
                Ok(value) if value <= 1 << 16 => value,
                _ => return self.error(format!("{number} threads or blocks")),
            };
        }
        Ok(triple)
    }

    fn params(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut params = Vec::new();
        while !self.take(')') {
            match self.word()?.as_str() {
                ".param" => {
                    let param = self.variable(Space::Param)?;
                    if param.size > MOST_PARAM {
                        return self
                            .error(format!("parameter {} of {} bytes is too large", param.name, param.size));
                    }
                    params.push(param);
                }
                ".reg" => return self.error("parameters in registers are not supported"),
                other => return self.error(format!("expected .param, found {other}")),
            }
            self.take(',');
        }
        Ok(params)
    }

    /// Variables of one declaration, after its space.
    pub(super) fn variables(&mut self, space: Space, to: &mut Vec<Variable>) -> Result<()> {
        to.push(self.variable(space)?);
        self.expect(';')
    }

    fn variable(&mut self, space: Space) -> Result<Variable> {
        let line = self.line();
        let mut align = 0;
        let mut element = 0;
        let mut vector = 1;
        while let Some(word) = self.peek_word().filter(|w| w.starts_with('.')).map(str::to_owned) {
            self.at += 1;
            match word.as_str() {
                ".align" => align = self.unsigned()? as usize,
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                ".attribute" => {
                    self.expect('(')?;
                    let attribute = self.word()?;
                    if attribute != ".managed" {
                        return self.error(format!("attribute {attribute} is not supported"));
                    }
                    self.expect(')')?;
                }
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                _ => match type_bytes(&word[1..]) {
                    Some(bytes) => element = bytes,
                    None => return self.error(format!("type {word} of a variable is not supported")),
                },
            }
        }
        element *= vector;
        if element == 0 {
            return self.error("expected a variable's type");
        }
        let name = self.word()?;
        let size = element * self.dimensions()?;
        let init = if self.take('=') { self.initialiser(element / vector)? } else { Vec::new() };
        if init.len() > size / (element / vector) {
            return self.error(format!("variable {name} has more initial values than elements"));
        }
        // `.align` of a parameter that is a pointer is that of the memory it points to.
        let align = if align == 0 || space == Space::Param && size == element { element } else { align };
        let most = if matches!(space, Space::Global | Space::Const) { GLOBAL_ALIGN } else { MOST_ALIGN };
        if !align.is_power_of_two() || align > most {
            return self
                .error(format!("expected an alignment that is a power of two up to {most}, found {align}"));
        }
        Ok(Variable { space, name, align, element: element / vector, size, init, line })
    }

    /// Reads an operand that is part of another.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MOST_DEPTH {
            return self.error("operands nested too deeply");
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// `[2][3]`, 1 without any, 0 for `[]`.
    fn dimensions(&mut self) -> Result<usize> {
        let mut count = 1usize;
        while self.take('[') {
            if self.take(']') {
                count = 0;
                continue;
            }
            let n = self.unsigned()?;
            count = match usize::try_from(n).ok().and_then(|n| count.checked_mul(n)) {
                Some(count) if count < 1 << 40 => count,
                _ => return self.error("an array of absurd size"),
            };
            self.expect(']')?;
        }
        Ok(count)
    }

    fn initialiser(&mut self, element: usize) -> Result<Vec<Init>> {
        let mut values = Vec::new();
        let mut depth = 0usize;
        loop {
            if self.take('{') {
                depth += 1;
                continue;
            }
            values.push(self.initial_value(element)?);
            while depth > 0 && self.take('}') {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(values);
            }
            self.expect(',')?;
        }
    }

    fn initial_value(&mut self, element: usize) -> Result<Init> {
        match self.operand()? {
            Operand::Integer(value) => Ok(Init::Bits(value as u64)),
            Operand::Float(bits) => Ok(Init::Bits(u64::from(bits))),
            Operand::Double(bits) if element == 4 => {
                Ok(Init::Bits(u64::from((f64::from_bits(bits) as f32).to_bits())))
            }
            Operand::Double(bits) => Ok(Init::Bits(bits)),
            Operand::Name(name) if name == "generic" => {
                self.expect('(')?;
                let name = self.word()?;
                self.expect(')')?;
                Ok(Init::Address(name, self.offset()?.unwrap_or(0)))
            }
            Operand::Name(name) => Ok(Init::Address(name, 0)),
            Operand::Offset(name, offset) => Ok(Init::Address(name, offset)),
            other => self.error(format!("initial value {other:?} is not supported")),
        }
    }
}

/// The space that a directive declares variables in.
pub(super) fn space(directive: &str) -> Option<Space> {
    Some(match directive {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        _ => return None,
    })
}

/// Bytes of a fundamental type.
pub fn type_bytes(ty: &str) -> Option<usize> {
    Some(match ty {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

/// Reads `12`, `0x1F`, `017`, `0b101`, each with an optional `U`.
pub(super) fn integer(word: &str) -> Option<i128> {
    let digits = word.strip_suffix('U').unwrap_or(word);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    digits.bytes().next().filter(u8::is_ascii_hexdigit)?;
    i128::from_str_radix(digits, radix).ok()
}
