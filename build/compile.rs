//! nvcc, once for each kernel file and architecture, several at a time, skipping what is there already.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

use crate::nvcc::Nvcc;
use crate::{FLAGS, PTX_ARCHS};

/// Variables that nvcc itself reads.
const NVCC_VARIABLES: [&str; 3] = ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

/// One kernel file compiled for one architecture.
pub struct Built {
    /// Name of the file without `.cu`.
    pub file: String,
    /// Architecture as in `sm_…`.
    pub arch: String,
    pub ptx: PathBuf,
    pub cubin: PathBuf,
    /// Output of the compiler.
    pub log: String,
    /// Whether machine code was asked for.
    pub wanted: bool,
}

impl Built {
    pub fn label(&self) -> String {
        format!("kernels/{}.cu for sm_{}", self.file, self.arch)
    }
}

/// Compiles every `.cu` of `sources` into `cache`.
pub fn all(nvcc: &Nvcc, root: &Path, cache: &Path, sources: &[PathBuf]) -> Vec<Built> {
    fs::create_dir_all(cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let wanted = wanted_archs();
    let archs: Vec<&str> = PTX_ARCHS.into_iter().chain(wanted.iter().map(String::as_str)).collect();
    let key = key(nvcc, sources);
    let mut jobs = Vec::new();
    for source in sources.iter().filter(|source| source.extension().is_some_and(|e| e == "cu")) {
        let file = source.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 file name");
        for (i, &arch) in archs.iter().enumerate() {
            if fits(file, arch) && !archs[..i].contains(&arch) {
                jobs.push((file, arch));
            }
        }
    }
    forget_others(cache, key);
    in_parallel(&jobs, |&(file, arch)| {
        let stem = cache.join(format!("{file}.sm_{arch}.{key:016x}"));
        let log = compile(nvcc, root, &stem, file, arch);
        let (ptx, cubin) = (with_extension(&stem, "ptx"), with_extension(&stem, "cubin"));
        let wanted = wanted.iter().any(|w| w == arch);
        Built { file: file.to_owned(), arch: arch.to_owned(), ptx, cubin, log, wanted }
    })
}

/// `DG_CUDA_ARCHS`, checked.
fn wanted_archs() -> Vec<String> {
    println!("cargo::rerun-if-env-changed=DG_CUDA_ARCHS");
    let list = env::var("DG_CUDA_ARCHS").unwrap_or_else(|_| PTX_ARCHS.join(","));
    let archs = list.split(',').map(str::trim).filter(|arch| !arch.is_empty()).map(str::to_owned);
    let archs: Vec<String> = archs.collect();
    for arch in &archs {
        let digits = arch.strip_suffix(['a', 'f']).unwrap_or(arch);
        let number: Option<u32> = digits.parse().ok();
        if number.is_none_or(|number| number < 80) {
            panic!("DG_CUDA_ARCHS: expected architectures from 80 on, such as 80,90a,120, found {arch}");
        }
    }
    archs
}

/// Whether a file is made for an architecture: `…_sm90.cu` is for 90a alone, others are for all.
fn fits(file: &str, arch: &str) -> bool {
    match file.rsplit_once("_sm") {
        Some((_, only)) => arch.strip_suffix('a') == Some(only),
        None => true,
    }
}

/// Names the compiler, what it is told, and all it reads of ours.
fn key(nvcc: &Nvcc, sources: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&nvcc.version, &nvcc.path, FLAGS).hash(&mut hasher);
    for variable in NVCC_VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
        env::var_os(variable).hash(&mut hasher);
    }
    for source in sources {
        let text = fs::read(source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        (source.file_name(), text).hash(&mut hasher);
    }
    hasher.finish()
}

/// Removes what earlier keys have left.
fn forget_others(cache: &Path, key: u64) {
    let key = format!(".{key:016x}.");
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().contains(&key) {
            // A file that cannot be removed only takes space.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Applies `work` to all jobs on as many threads as cargo allows.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let queue = Mutex::new(jobs.iter().enumerate());
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let worker = || {
            let next = || queue.lock().expect("no panic while taking a job").next();
            std::iter::from_fn(next).map(|(i, job)| (i, work(job))).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("the compiler's complaint is above")).collect()
    });
    results.sort_by_key(|&(i, _)| i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// PTX, machine code and log at `stem`; returns the log. The log comes last: where it is, the others are.
fn compile(nvcc: &Nvcc, root: &Path, stem: &Path, file: &str, arch: &str) -> String {
    let log_file = with_extension(stem, "log");
    if let Ok(log) = fs::read_to_string(&log_file) {
        return log;
    }
    let (ptx, cubin) = (with_extension(stem, "ptx"), with_extension(stem, "cubin"));
    let source = with_extension(&Path::new("kernels").join(file), "cu");
    let virtual_arch = format!("-arch=compute_{arch}");
    let mut log = run(nvcc, root, &["-ptx".as_ref(), virtual_arch.as_ref()], &source, &ptx);
    let text = fs::read_to_string(&ptx).unwrap_or_else(|e| panic!("{}: {e}", ptx.display()));
    // Line information names files; where this repository lies on the machine that builds is nobody's
    // concern.
    let text = text.replace(&format!("\"{}/", root.display()), "\"");
    fs::write(&ptx, text).unwrap_or_else(|e| panic!("{}: {e}", ptx.display()));
    let real_arch = format!("-arch=sm_{arch}");
    let verbose = ["-cubin", &real_arch, "-Xptxas", "-v"].map(AsRef::as_ref);
    log.push_str(&run(nvcc, root, &verbose, &ptx, &cubin));
    fs::write(&log_file, &log).unwrap_or_else(|e| panic!("{}: {e}", log_file.display()));
    log
}

/// `path.extension`, whatever dots are in the path already.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Runs the compiler; ends the build with its complaint if it fails.
fn run(nvcc: &Nvcc, root: &Path, options: &[&Path], from: &Path, to: &Path) -> String {
    let mut command = Command::new(&nvcc.path);
    command.current_dir(root).args(FLAGS).args(options).arg(from).arg("-o").arg(to);
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", nvcc.path.display()));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?} failed (NVCC= leaves the kernels out):\n{said}");
    said
}
