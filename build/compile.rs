//! nvcc, once for each kernel file and architecture, several at a time, skipping what is there already.

use std::collections::HashSet;
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

/// A kernel file to be compiled for an architecture.
#[derive(Clone, Copy)]
struct Job<'a> {
    file: &'a str,
    /// Where what the compilation leaves lies.
    cache: &'a Path,
    /// Of all that the compiler reads for the file.
    key: u64,
    arch: &'a str,
}

impl Job<'_> {
    fn result(&self, arch: &str, extension: &str) -> PathBuf {
        self.cache.join(format!("{}.sm_{arch}.{:016x}.{extension}", self.file, self.key))
    }
}

/// Compiles every `.cu` of `sources` into `cache`.
pub fn all(nvcc: &Nvcc, root: &Path, cache: &Path, sources: &[PathBuf]) -> Vec<Built> {
    fs::create_dir_all(cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let wanted = wanted_archs();
    let archs: Vec<&str> = PTX_ARCHS.into_iter().chain(wanted.iter().map(String::as_str)).collect();
    let common = key(nvcc, sources);
    let mut jobs = Vec::new();
    for source in sources.iter().filter(|source| is_kernel(source)) {
        let file = source.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 file name");
        let key = key_of(source, common.clone());
        for (i, &arch) in archs.iter().enumerate() {
            if fits(file, arch) && !archs[..i].contains(&arch) {
                jobs.push(Job { file, cache, key, arch });
            }
        }
    }
    forget_others(cache, &jobs);
    let translated: Vec<Job> =
        jobs.iter().copied().filter(|job| virtual_arch(job.arch) == job.arch).collect();
    in_parallel(&translated, |job| translate(nvcc, root, job));
    in_parallel(&jobs, |job| {
        let Job { file, arch, .. } = *job;
        let log = assemble(nvcc, root, job);
        let ptx = job.result(virtual_arch(arch), "ptx");
        let wanted = wanted.iter().any(|w| w == arch);
        Built {
            file: file.to_owned(),
            arch: arch.to_owned(),
            ptx,
            cubin: job.result(arch, "cubin"),
            log,
            wanted,
        }
    })
}

/// The architecture whose PTX is assembled for another one: sm_80's for all of its generation, as nothing but
/// machine code differs there. Later ones have their own, with which ptxas needs fewer registers.
fn virtual_arch(arch: &str) -> &str {
    if ["86", "87", "89"].contains(&arch) { "80" } else { arch }
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

fn is_kernel(source: &Path) -> bool {
    source.extension().is_some_and(|extension| extension == "cu")
}

/// Names the compiler, what it is told here, and the headers that every file may read.
fn key(nvcc: &Nvcc, sources: &[PathBuf]) -> DefaultHasher {
    let mut hasher = DefaultHasher::new();
    (&nvcc.version, &nvcc.path, FLAGS, include_str!("compile.rs")).hash(&mut hasher);
    for variable in NVCC_VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
        env::var_os(variable).hash(&mut hasher);
    }
    for source in sources.iter().filter(|source| !is_kernel(source)) {
        hash_file(source, &mut hasher);
    }
    hasher
}

/// Names a kernel file as well. None includes another one.
fn key_of(source: &Path, mut hasher: DefaultHasher) -> u64 {
    hash_file(source, &mut hasher);
    hasher.finish()
}

fn hash_file(path: &Path, hasher: &mut DefaultHasher) {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path.file_name(), text).hash(hasher);
}

/// Removes what earlier keys have left.
fn forget_others(cache: &Path, jobs: &[Job]) {
    let keys: HashSet<String> = jobs.iter().map(|job| format!("{:016x}", job.key)).collect();
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().split('.').any(|part| keys.contains(part)) {
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

/// Writes the PTX of a file. The log comes last: where it is, the PTX is whole.
fn translate(nvcc: &Nvcc, root: &Path, job: &Job) {
    let (ptx, log_file) = (job.result(job.arch, "ptx"), job.result(job.arch, "ptx.log"));
    if log_file.exists() {
        return;
    }
    let source = Path::new("kernels").join(format!("{}.cu", job.file));
    let virtual_arch = format!("-arch=compute_{}", job.arch);
    let log = run(nvcc, root, &["-ptx".as_ref(), virtual_arch.as_ref()], &source, &ptx);
    let text = fs::read_to_string(&ptx).unwrap_or_else(|e| panic!("{}: {e}", ptx.display()));
    // Line information names files; where this repository lies on the machine that builds is nobody's
    // concern.
    let text = text.replace(&format!("\"{}/", root.display()), "\"");
    write(&ptx, &text);
    write(&log_file, &log);
}

/// Writes machine code; returns the log of that and of the PTX, where this architecture has its own. The log
/// comes last: where it is, the machine code is whole.
fn assemble(nvcc: &Nvcc, root: &Path, job: &Job) -> String {
    let log_file = job.result(job.arch, "log");
    if let Ok(log) = fs::read_to_string(&log_file) {
        return log;
    }
    let real_arch = format!("-arch=sm_{}", job.arch);
    let verbose = ["-cubin", &real_arch, "-Xptxas", "-v"].map(AsRef::as_ref);
    let mut log = fs::read_to_string(job.result(job.arch, "ptx.log")).unwrap_or_default();
    let ptx = job.result(virtual_arch(job.arch), "ptx");
    log.push_str(&run(nvcc, root, &verbose, &ptx, &job.result(job.arch, "cubin")));
    write(&log_file, &log);
    log
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
