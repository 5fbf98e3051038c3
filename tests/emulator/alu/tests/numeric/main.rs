//! Arithmetic instructions, executed through the table, against references that share no code with them.

mod approximate;
mod bits;
mod compare;
mod convert;
mod exact;
mod executors;
mod float;
mod half;
mod integer;
mod machine;
mod narrow;
mod opcodes;
#[path = "../../../../common/required.rs"]
mod required;
mod samples;
