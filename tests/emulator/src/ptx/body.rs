//! Statements and operands.

use super::ast::{Instruction, Operand, Statement};
use super::lexer::Token;
use super::parser::{Parser, Result, integer, space};

impl Parser {
    /// Statements up to the `}` that ends the function.
    pub(super) fn body(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let mut depth = 0usize;
        loop {
            if self.take('{') {
                depth += 1;
                statements.push(Statement::Open);
            } else if self.take('}') {
                if depth == 0 {
                    return Ok(statements);
                }
                depth -= 1;
                statements.push(Statement::Close);
            } else if !self.take(';') {
                self.statement(&mut statements)?;
            }
        }
    }

    fn statement(&mut self, to: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let Some(word) = self.peek_word().map(str::to_owned) else {
            to.push(Statement::Instruction(self.instruction()?));
            return Ok(());
        };
        if let Some(label) = word.strip_suffix(':') {
            self.next()?;
            to.push(self.label(label)?);
        } else if word.starts_with('.') {
            self.next()?;
            self.directive(&word, line, to)?;
        } else {
            to.push(Statement::Instruction(self.instruction()?));
        }
        Ok(())
    }

    fn label(&mut self, label: &str) -> Result<Statement> {
        match self.peek_word() {
            Some(".branchtargets") => {
                self.next()?;
                let mut targets = vec![self.word()?];
                while self.take(',') {
                    targets.push(self.word()?);
                }
                self.expect(';')?;
                Ok(Statement::BranchTargets(label.to_owned(), targets))
            }
            Some(word @ (".calltargets" | ".callprototype")) => {
                self.error(format!("{word}: indirect calls are not supported"))
            }
            _ => Ok(Statement::Label(label.to_owned())),
        }
    }

    fn directive(&mut self, word: &str, line: u32, to: &mut Vec<Statement>) -> Result<()> {
        match word {
            ".loc" => {
                let (file, at) = (self.unsigned()? as u32, self.unsigned()? as u32);
                self.skip_line(line);
                to.push(Statement::Location(file, at));
            }
            ".pragma" => {
                self.next()?;
                self.expect(';')?;
            }
            ".reg" => self.registers(to)?,
            _ => match space(word) {
                Some(space) => {
                    let mut variables = Vec::new();
                    self.variables(space, &mut variables)?;
                    to.extend(variables.into_iter().map(Statement::Variable));
                }
                None => return self.error(format!("directive {word} is not supported in a function")),
            },
        }
        Ok(())
    }

    fn registers(&mut self, to: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let ty = self.word()?;
        let ty = ty.strip_prefix('.').unwrap_or(&ty).to_owned();
        loop {
            let name = self.word()?;
            let count = if self.take('<') {
                let count = self.unsigned()?;
                self.expect('>')?;
                if count > 1 << 20 {
                    return self.error(format!("{count} registers"));
                }
                Some(count as u32)
            } else {
                None
            };
            to.push(Statement::Registers { ty: ty.clone(), name, count, line });
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn instruction(&mut self) -> Result<Instruction> {
        let line = self.line();
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let opcode = self.word()?;
        let mut parts = opcode.split('.').map(str::to_owned);
        let base = parts.next().unwrap_or_default();
        let modifiers = parts.collect();
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand()?);
            if !self.take(',') {
                self.expect(';')?;
                break;
            }
        }
        Ok(Instruction { line, guard, base, modifiers, operands })
    }

    pub(super) fn operand(&mut self) -> Result<Operand> {
        let operand = self.simple_operand()?;
        if self.take('|') {
            let second = self.simple_operand()?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }

    fn simple_operand(&mut self) -> Result<Operand> {
        match self.next()? {
            Token::Word(word) => self.word_operand(word),
            Token::Sign('!') => Ok(Operand::Not(self.word()?)),
            Token::Sign('-') => self.negative(),
            Token::Sign('{') => Ok(Operand::Vector(self.nested(|p| p.list('}'))?)),
            Token::Sign('(') => Ok(Operand::List(self.nested(|p| p.list(')'))?)),
            Token::Sign('[') => self.nested(Self::address),
            other => self.error(format!("operand {other:?} is not supported")),
        }
    }

    fn word_operand(&mut self, word: String) -> Result<Operand> {
        if let Some(number) = number(&word) {
            return Ok(number);
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return self.error(format!("{word} is no number"));
        }
        match self.offset()? {
            Some(offset) => Ok(Operand::Offset(word, offset)),
            None => Ok(Operand::Name(word)),
        }
    }

    fn negative(&mut self) -> Result<Operand> {
        let word = self.word()?;
        match number(&word) {
            Some(Operand::Integer(value)) => Ok(Operand::Integer(-value)),
            Some(Operand::Double(bits)) => Ok(Operand::Double((-f64::from_bits(bits)).to_bits())),
            Some(Operand::Float(bits)) => Ok(Operand::Float(bits ^ 1 << 31)),
            _ => self.error(format!("expected a number after '-', found {word}")),
        }
    }

    fn list(&mut self, end: char) -> Result<Vec<Operand>> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.operand()?);
            if !self.take(',') {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    /// `+ 4`, `+ -4` or `- 4`.
    pub(super) fn offset(&mut self) -> Result<Option<i64>> {
        let negative = if self.take('+') {
            self.take('-')
        } else if self.take('-') {
            true
        } else {
            return Ok(None);
        };
        let word = self.word()?;
        let Some(value) = integer(&word).and_then(|v| i64::try_from(v).ok()) else {
            return self.error(format!("expected an offset, found {word}"));
        };
        Ok(Some(if negative { -value } else { value }))
    }

    fn address(&mut self) -> Result<Operand> {
        let word = self.word()?;
        let (base, mut offset) = match integer(&word) {
            Some(value) => (String::new(), value as i64),
            None => (word, 0),
        };
        offset = offset.wrapping_add(self.offset()?.unwrap_or(0));
        let coordinates = if self.take(',') {
            match self.operand()? {
                Operand::Vector(coordinates) => coordinates,
                other => vec![other],
            }
        } else {
            Vec::new()
        };
        self.expect(']')?;
        Ok(Operand::Address { base, offset, coordinates })
    }
}

fn number(word: &str) -> Option<Operand> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    match word.as_bytes() {
        [b'0', b'f' | b'F', ..] => hex(&word[2..]).and_then(|v| u32::try_from(v).ok()).map(Operand::Float),
        [b'0', b'd' | b'D', ..] => hex(&word[2..]).map(Operand::Double),
        [b'0'..=b'9', ..] if word.contains('.') => {
            word.parse::<f64>().ok().map(|v| Operand::Double(v.to_bits()))
        }
        [b'0'..=b'9', ..] => integer(word).map(Operand::Integer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn instruction(text: &str) -> Instruction {
        let module = format!(".version 9.0\n.target sm_80\n.entry k() {{ {text} }}");
        let mut body = parse(&module).expect("parses").functions.remove(0).body;
        match body.remove(0) {
            Statement::Instruction(instruction) => instruction,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opcodes_split_at_dots_and_keep_double_colons() {
        let load = instruction("@!%p1 ld.global.L2::128B.v2.b32 {%r1, _}, [%rd1+-8];");
        assert_eq!((load.base.as_str(), load.modifiers.len()), ("ld", 4));
        assert!(load.has("L2::128B"));
        assert_eq!(load.guard, Some(("%p1".into(), true)));
        let address = Operand::Address { base: "%rd1".into(), offset: -8, coordinates: vec![] };
        assert_eq!(load.operands[1], address);
    }

    #[test]
    fn numbers_are_read_in_every_notation() {
        let add = instruction("x 0x1F, 017, 0b101, 5U, -3, 0f3F800000, 0d3FF0000000000000, 1.5;");
        let one = 0x3FF0_0000_0000_0000;
        let expected = [
            Operand::Integer(31),
            Operand::Integer(15),
            Operand::Integer(5),
            Operand::Integer(5),
            Operand::Integer(-3),
            Operand::Float(0x3F80_0000),
            Operand::Double(one),
            Operand::Double(1.5f64.to_bits()),
        ];
        assert_eq!(add.operands, expected);
    }

    #[test]
    fn tensor_addresses_have_coordinates() {
        let copy = instruction("x [smem], [%rd1, {%r1, %r2}], [%r3 + 0];");
        let Operand::Address { coordinates, .. } = &copy.operands[1] else { panic!() };
        assert_eq!(coordinates.len(), 2);
    }

    #[test]
    fn what_is_not_ptx_is_an_error_with_its_line() {
        for text in
            ["", "hello", ".version 9.0\n.target sm_80\n.entry k() { add", ".target sm_80\n.tex .u64 t;"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse(".version 9.0\n.target sm_80\n.entry k() {\n ld.global ] ;\n}").unwrap_err();
        assert!(error.starts_with("line 4:"), "{error}");
    }
}
