//! Reading what ptxas says about kernels.

/// Resources of one kernel on one architecture.
#[derive(Default)]
pub struct Usage {
    pub name: String,
    pub registers: usize,
    pub shared: usize,
    pub stack: usize,
    pub spills: usize,
}

/// A line for each kernel of a log of `-Xptxas -v`.
pub fn usage(log: &str) -> Vec<Usage> {
    let mut kernels: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Usage { name, ..Usage::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        for part in line.split([',', ':']).map(str::trim) {
            let number = || part.split(' ').find_map(|word| word.parse::<usize>().ok());
            if part.ends_with("registers") {
                kernel.registers = number().unwrap_or_else(|| panic!("ptxas: {line}"));
            } else if part.ends_with("bytes smem") {
                kernel.shared = number().unwrap_or_else(|| panic!("ptxas: {line}"));
            } else if part.ends_with("bytes stack frame") {
                kernel.stack = number().unwrap_or_else(|| panic!("ptxas: {line}"));
            } else if part.ends_with("bytes spill stores") || part.ends_with("bytes spill loads") {
                kernel.spills += number().unwrap_or_else(|| panic!("ptxas: {line}"));
            }
        }
    }
    kernels
}

/// Lines of a log that somebody should read: warnings, and registers spilled to memory.
pub fn warnings(log: &str) -> impl Iterator<Item = String> {
    let said = |line: &&str| line.contains("warning") || line.contains("Performance Loss");
    let spilled = usage(log).into_iter().filter(|kernel| kernel.spills > 0 || kernel.stack > 0);
    let spilled =
        spilled.map(|k| format!("{}: {} bytes of spills, {} bytes of stack", k.name, k.spills, k.stack));
    log.lines().filter(said).map(|line| line.trim().to_owned()).chain(spilled)
}
