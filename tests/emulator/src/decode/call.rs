//! Calls: device functions are decoded in place, the two functions of the CUDA run time are operations.

use crate::counters::Class;
use crate::ptx::ast::{Instruction, Operand, Variable};

use super::control::name;
use super::program::{NONE, Op, Space};
use super::scope::Symbol;
use super::{Decoder, Result};

/// Calls in each other at most.
const MOST_CALLS: usize = 64;

impl Decoder<'_> {
    pub(super) fn call(&mut self, i: &Instruction) -> Result<()> {
        let (returns, rest) = match i.operands.first() {
            Some(Operand::List(returns)) => (returns.as_slice(), &i.operands[1..]),
            _ => (&[][..], &i.operands[..]),
        };
        let callee = name(rest.first().ok_or("expected a function")?)?;
        let arguments = match rest.get(1) {
            Some(Operand::List(arguments)) => arguments.as_slice(),
            None => &[],
            Some(_) => return Err("indirect calls are not supported".into()),
        };
        match callee.as_str() {
            "vprintf" => {
                let format = self.local_address(arguments.first())?;
                let values = self.local_address(arguments.get(1))?;
                self.push(i, Class::Control, Op::Printf { format, values })
            }
            "__assertfail" => {
                let message = self.local_address(arguments.first())?;
                let file = self.local_address(arguments.get(1))?;
                let line = self.local_address(arguments.get(2))?;
                self.push(i, Class::Control, Op::Assert { message, file, line })
            }
            _ => self.inline(i, &callee, returns, arguments),
        }
    }

    /// Offset in local memory of a variable that is an argument.
    fn local_address(&self, operand: Option<&Operand>) -> Result<u32> {
        let name = name(operand.ok_or("expected an argument")?)?;
        match self.scopes.find(&name) {
            Some(Symbol::Variable(Space::Local, at)) => Ok(at as u32),
            _ => Err(format!("expected a .param variable, found {name}")),
        }
    }

    /// Decodes the body of a function in place of the call.
    fn inline(
        &mut self,
        i: &Instruction,
        callee: &str,
        returns: &[Operand],
        arguments: &[Operand],
    ) -> Result<()> {
        let function = self.module.functions.iter().find(|f| f.name == callee && !f.entry);
        let function = function.ok_or_else(|| format!("function {callee} has no body"))?;
        if self.inlining.iter().any(|name| name == callee) {
            return Err(format!("function {callee} calls itself: recursion is not supported"));
        }
        if self.inlining.len() == MOST_CALLS {
            return Err(format!(
                "function {callee}: calls nested more than {MOST_CALLS} deep are not supported"
            ));
        }
        if returns.len() != function.returns.len() || arguments.len() != function.params.len() {
            return Err(format!("{callee} is called with other parameters than it has"));
        }
        let skip = self.skip_unless_guarded(i)?;
        let bind = |decoder: &Self, variables: &[Variable], operands: &[Operand]| {
            variables
                .iter()
                .zip(operands)
                .map(|(v, o)| Ok((v.name.clone(), decoder.local_address(Some(o))?)))
                .collect::<Result<Vec<_>>>()
        };
        let mut bound = bind(self, &function.returns, returns)?;
        bound.extend(bind(self, &function.params, arguments)?);

        let caller = self.scopes.enter_function();
        for (name, at) in bound {
            self.scopes.declare(&name, Symbol::Variable(Space::Local, u64::from(at)));
        }
        self.inlining.push(callee.to_owned());
        let outer = std::mem::take(&mut self.returns);
        let body = self.function_body(function);
        self.scopes.leave_function(caller);
        self.inlining.pop();
        let end = self.instructions.len() as u32;
        for at in std::mem::replace(&mut self.returns, outer).into_iter().chain(skip) {
            self.instructions[at].op = Op::Branch(end);
        }
        // Something has to stand at the end, also when nothing follows in the caller.
        self.site.ptx_line = i.line;
        body?;
        self.push(&Instruction { guard: None, ..i.clone() }, Class::Control, Op::Nop)
    }

    /// For a guarded call, a branch around it by those that the guard excludes.
    fn skip_unless_guarded(&mut self, i: &Instruction) -> Result<Option<usize>> {
        let Some((name, negated)) = &i.guard else { return Ok(None) };
        let around = Instruction { guard: Some((name.clone(), !negated)), ..i.clone() };
        self.push(&around, Class::Control, Op::Branch(NONE))?;
        Ok(Some(self.instructions.len() - 1))
    }
}
