//! `printf` and `assert` of device code.

use std::io::Write;

use crate::decode::operands::{LOCAL_WINDOW, WINDOW_MASK};
use crate::report::{Fault, FaultKind};

use super::{Exec, Result, lanes};

/// Characters of a text that are read at most.
const LONGEST: usize = 1 << 16;
/// Width and digits of a number at most.
const WIDEST: usize = 1 << 12;

impl Exec<'_> {
    pub(super) fn printf(&mut self, format: u32, values: u32, active: u32) -> Result<()> {
        let mut out = String::new();
        for lane in lanes(active) {
            let format = self.local_u64(format, lane)?;
            let values = self.local_u64(values, lane)?;
            let format = self.text(format).map_err(|fault| self.blame(fault, lane))?;
            out.push_str(&self.formatted(&format, values, lane)?);
        }
        // A closed standard output is no fault of the kernel.
        let _ = std::io::stdout().write_all(out.as_bytes());
        Ok(())
    }

    pub(super) fn assert_failed(&mut self, message: u32, file: u32, line: u32, active: u32) -> Box<Fault> {
        let lane = active.trailing_zeros() as usize;
        let text = |exec: &mut Self, at: u32| {
            let address = exec.local_u64(at, lane)?;
            exec.text(address)
        };
        let place = self.local_place(u64::from(line), 4, lane).map(|at| {
            let bytes = &self.warp.local[at..at + 4];
            u32::from_le_bytes(bytes.try_into().unwrap_or_default())
        });
        match (text(self, message), text(self, file), place) {
            (Ok(message), Ok(file), Ok(line)) => {
                let message = format!("assertion failed at {file}:{line}: {message}");
                self.lane_fault(FaultKind::Trap, message, lane)
            }
            _ => self.lane_fault(FaultKind::Trap, "assertion failed", lane),
        }
    }

    fn local_u64(&self, at: u32, lane: usize) -> Result<u64> {
        let at = self.local_place(u64::from(at), 8, lane)?;
        Ok(u64::from_le_bytes(self.warp.local[at..at + 8].try_into().unwrap_or_default()))
    }

    /// A text that ends with a zero, in global memory.
    fn text(&mut self, address: u64) -> Result<String> {
        let mut bytes = Vec::new();
        while bytes.len() < LONGEST {
            let mut byte = [0];
            self.cluster.read_global(self.grid.memory, address + bytes.len() as u64, &mut byte)?;
            if byte[0] == 0 {
                break;
            }
            bytes.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of C's `printf`. Values lie at their natural alignment in local memory.
    fn formatted(&mut self, format: &str, values: u64, lane: usize) -> Result<String> {
        let mut out = String::new();
        let mut at = values;
        let mut rest = format;
        while let Some(start) = rest.find('%') {
            out.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            let end = rest.find(|c: char| c.is_ascii_alphabetic() && !"hlLjzt".contains(c) || c == '%');
            let Some(end) = end else { break };
            let (flags, conversion) = (&rest[..end], rest.as_bytes()[end]);
            rest = &rest[end + 1..];
            if conversion == b'%' {
                out.push('%');
                continue;
            }
            let wide =
                flags.contains("ll") || flags.contains('l') || flags.contains('j') || flags.contains('z');
            let size = if wide || b"fFeEgGaAsp".contains(&conversion) { 8 } else { 4 };
            at = at.next_multiple_of(size);
            let value = self.variadic(at, size, lane)?;
            at += size;
            let text = match conversion {
                b's' => self.text(value)?,
                _ => converted(flags, conversion, value, wide),
            };
            out.push_str(&padded(flags, &text));
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variadic(&self, at: u64, size: u64, lane: usize) -> Result<u64> {
        if at & WINDOW_MASK != LOCAL_WINDOW {
            return Err(self
                .lane_fault(FaultKind::Unsupported, "values of printf outside local memory", lane)
                .at(at));
        }
        let from = self.local_place(at & !WINDOW_MASK, size as u32, lane)?;
        let mut value = [0; 8];
        value[..size as usize].copy_from_slice(&self.warp.local[from..from + size as usize]);
        Ok(u64::from_le_bytes(value))
    }
}

fn converted(flags: &str, conversion: u8, value: u64, wide: bool) -> String {
    let signed = if wide { value as i64 } else { i64::from(value as i32) };
    let digits =
        flags.split_once('.').and_then(|(_, p)| p.trim_end_matches(char::is_alphabetic).parse().ok());
    let float = f64::from_bits(value);
    match conversion {
        b'd' | b'i' => signed.to_string(),
        b'u' => value.to_string(),
        b'x' => format!("{value:x}"),
        b'X' => format!("{value:X}"),
        b'o' => format!("{value:o}"),
        b'p' => format!("{value:#x}"),
        b'c' => char::from(value as u8).to_string(),
        b'e' => scientific(float, digits.unwrap_or(6).min(WIDEST)),
        b'g' | b'G' => format!("{float}"),
        _ => format!("{float:.*}", digits.unwrap_or(6).min(WIDEST)),
    }
}

/// C writes the exponent with a sign and at least two digits.
fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{mantissa}e{sign}{exponent:0>2}")
        }
    }
}

fn padded(flags: &str, text: &str) -> String {
    let left = flags.contains('-');
    let width = flags.trim_start_matches(['-', '+', ' ', '#']);
    let zero = width.starts_with('0') && !left;
    let digits: String = width.chars().take_while(char::is_ascii_digit).collect();
    let width = digits.parse().unwrap_or(0).min(WIDEST);
    match (left, zero) {
        (true, _) => format!("{text:<width$}"),
        (_, true) => match text.strip_prefix('-') {
            Some(text) => format!("-{text:0>0$}", width.saturating_sub(1)),
            None => format!("{text:0>width$}"),
        },
        _ => format!("{text:>width$}"),
    }
}
