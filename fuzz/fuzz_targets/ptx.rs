//! PTX, as the emulator reads it: a program, or an error with its line.
#![no_main]

use std::collections::HashMap;

use cuda_emulator::decode::decode;
use cuda_emulator::ptx::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(module) = parse(text) else { return };
    let addresses =
        module.variables.iter().map(|variable| (variable.name.clone(), 256)).collect::<HashMap<_, _>>();
    for function in module.functions.iter().filter(|function| function.entry) {
        let _either_way = decode(&module, function, &addresses);
    }
});
