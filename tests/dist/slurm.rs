//! Ranks that Slurm starts: its own daemons on two machines, which are network namespaces.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deepguard::adapter::FINAL_ADAPTER;

use super::check::assert_ends;
use super::machines::Machines;
use super::mpi::{Kind, Mpi, finished};
use super::required::not_tested;
use super::tiny::Tiny;
use super::train::{TRAIN, alone, assert_same_folders, tiny_with_pairs};

/// Until daemons are there, and until a job has ended.
const SOON: Duration = Duration::from_secs(30);
const DONE: Duration = Duration::from_secs(60);

/// Two nodes of two processors, without accounts, keys or control groups.
const CONFIGURATION: &str = "
ClusterName=test
SlurmctldHost=gpu-0
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmUser=root
SlurmdUser=root
ReturnToService=2
KillWait=5
NodeName=gpu-[0-1] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
";

/// Slurm's daemons on two machines; gone when dropped, with all that they have started.
struct Slurm {
    machines: Machines,
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Slurm {
    /// `None`, after saying so, where it is not installed or machines cannot be had.
    fn start(test: &str) -> Option<Self> {
        if !["/usr/sbin/slurmctld", "/usr/sbin/slurmd"].iter().all(|daemon| Path::new(daemon).exists()) {
            not_tested("no Slurm: `make slurm` gets it");
            return None;
        }
        let machines = Machines::with_names(test)?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("slurm.conf"), configuration(dir.path())).unwrap();
        let mut slurm = Slurm { machines, dir, daemons: Vec::new() };
        for (machine, daemon) in [(0, "slurmctld"), (0, "slurmd"), (1, "slurmd")] {
            let daemon = slurm.daemon(machine, daemon).spawn().unwrap();
            slurm.daemons.push(daemon);
        }
        slurm.wait_for("2 idle nodes", SOON, |slurm| slurm.says("sinfo --noheader -o %T%D") == "idle2\n");
        Some(slurm)
    }

    /// In a process namespace, whose processes end with the first of them, and with shared memory of its own:
    /// MPI names its parts by job and step, which other Slurms have as well.
    fn daemon(&self, machine: usize, daemon: &str) -> Command {
        const SHARED_MEMORY: &str = "mount -t tmpfs shared /dev/shm && exec \"$0\" -D";
        let mut command = self.machines.on(machine, "unshare");
        command.args(["--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", SHARED_MEMORY, &format!("/usr/sbin/{daemon}")]);
        command.env("SLURM_CONF", self.dir.path().join("slurm.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// One of Slurm's commands.
    fn command(&self, words: &str) -> Command {
        let mut words = words.split_whitespace();
        let mut command = self.machines.on(0, words.next().unwrap());
        command.args(words).stdin(Stdio::null());
        command.env("RAYON_NUM_THREADS", "1").env("SLURM_CONF", self.dir.path().join("slurm.conf"));
        command
    }

    fn says(&self, words: &str) -> String {
        String::from_utf8_lossy(&finished(self.command(words), SOON).stdout).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, limit: Duration, is_there: impl Fn(&Self) -> bool) {
        let until = Instant::now() + limit;
        while !is_there(self) {
            assert!(Instant::now() < until, "no {what}: {}{}", self.says("scontrol show job"), self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts a script into the queue, which runs in a folder, and returns the job's number.
    fn batch(&self, folder: &Path, script: &str) -> String {
        let path = self.dir.path().join("job.sh");
        std::fs::write(&path, script).unwrap();
        let said = self.dir.path().join("said");
        let mut command =
            self.command(&format!("sbatch --parsable --output={} --open-mode=append", said.display()));
        command.current_dir(folder).arg(path);
        let output = finished(command, SOON);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What jobs have said.
    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    /// Whether something of a job is left on a machine: its script's folder, or a socket for PMI. They are
    /// named by job and step, so daemons that end late take those of the job's next start away, which fails
    /// then.
    fn has_leftovers(&self) -> bool {
        let names =
            ["spool-gpu-0", "spool-gpu-1"].map(|spool| std::fs::read_dir(self.dir.path().join(spool)));
        let names = names.into_iter().flat_map(Result::unwrap).map(|file| file.unwrap().file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        names.any(|name| name.starts_with("sock.pmi2") || name.starts_with("job"))
    }

    fn state(&self, job: &str) -> String {
        self.says(&format!("squeue --noheader --states=all --jobs={job} -o %T")).trim().to_owned()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn configuration(dir: &Path) -> String {
    let mut text = CONFIGURATION.to_owned();
    for (name, file) in [
        ("StateSaveLocation", "state"),
        ("SlurmdSpoolDir", "spool-%n"),
        ("SlurmctldPidFile", "slurmctld.pid"),
        ("SlurmdPidFile", "slurmd-%n.pid"),
        ("SlurmctldLogFile", "slurmctld.log"),
        ("SlurmdLogFile", "slurmd-%n.log"),
    ] {
        writeln!(text, "{name}={}", dir.join(file).display()).unwrap();
    }
    std::fs::create_dir(dir.join("state")).unwrap();
    text
}

/// `dg-run` with these arguments.
fn dg_run(arguments: &str) -> String {
    format!("{} {arguments}", env!("CARGO_BIN_EXE_dg-run"))
}

/// The library of MPICH, whose ranks `srun --mpi=pmi2` starts.
fn mpich() -> Option<PathBuf> {
    Mpi::find(Kind::Mpich).map(|mpich| mpich.library("libmpi.so.12"))
}

/// Two nodes with two ranks each.
const RANKS: &str = "--nodes=2 --ntasks-per-node=2";

/// A step of `dg-run` in the folder of a model.
fn step(slurm: &Slurm, tiny: &Tiny, options: &str, arguments: &str, mpi: Option<&Path>) -> Output {
    let mut command = slurm.command(&format!("srun {RANKS} {options} {}", dg_run(arguments)));
    command.current_dir(tiny.path("")).envs(mpi.map(|library| ("DG_MPI", library)));
    finished(command, DONE)
}

#[test]
#[ignore = "minutes, and Slurm: make test-long"]
fn steps_of_slurm_do_what_one_process_does() {
    let (Some(slurm), Some(mpich)) = (Slurm::start("step"), mpich()) else { return };
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many/train --num-epochs 1";
    alone(&tiny, "alone", more);
    let train = format!("train {TRAIN} --output-dir run {more}");
    let output = step(&slurm, &tiny, "--mpi=pmi2 --kill-on-bad-exit=1", &train, Some(&mpich));
    assert_ends(&output, 0, &["4 ranks, of which this is the first"]);
    assert_same_folders(&tiny.path("alone"), &tiny.path("run"), &[FINAL_ADAPTER, "checkpoint-4"]);

    // Without MPI, and what needs none.
    let output = step(&slurm, &tiny, "", "dist check", None);
    assert_ends(&output, 0, &["4 ranks, started by Slurm", "0  gpu-0", "3  gpu-1", "collectives: none"]);
    let output = step(&slurm, &tiny, "", &train.replace("--output-dir run", "--output-dir other"), None);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    std::fs::write(tiny.path("a.py"), "x = 1\n").unwrap();
    std::fs::write(tiny.path("b.py"), "def f(a):\n    return a\n").unwrap();
    for leased in [
        "generate --model model --adapter run --device cpu --max-new-tokens 4 -n 300 --temperature 1 abc",
        "score --model model --adapter run --device cpu --json a.py b.py",
    ] {
        let output = step(&slurm, &tiny, "--kill-on-bad-exit=0", leased, None);
        assert_ends(&output, 0, &["4 ranks, of which this is the first"]);
        let expected = single(&tiny, leased);
        assert!(output.stdout == expected.stdout && !expected.stdout.is_empty(), "{output:?}");
    }
    let sample = format!("eval sample --model model --device cpu {SCENARIOS} --output-dir");
    let output = step(&slurm, &tiny, "--kill-on-bad-exit=0", &format!("{sample} among"), None);
    assert_ends(&output, 0, &["4 ranks, of which this is the first"]);
    assert_ends(&single(&tiny, &format!("{sample} single")), 0, &[]);
    let [one, other] =
        ["single", "among"].map(|run| std::fs::read(tiny.path(run).join("samples.jsonl")).unwrap());
    assert!(one == other, "samples of ranks differ");
}

/// Two scenarios, with few samples.
const SCENARIOS: &str = concat!(
    "--suite ",
    env!("CARGO_MANIFEST_DIR"),
    "/data/eval --only python/cwe-089 --limit 2 -n 16 --temperature 1 --max-new-tokens 5"
);

/// What a process on its own does.
fn single(tiny: &Tiny, arguments: &str) -> Output {
    let mut single = Command::new(env!("CARGO_BIN_EXE_dg-run"));
    single.args(arguments.split(' ')).current_dir(tiny.path("")).env("RAYON_NUM_THREADS", "1");
    finished(single, DONE)
}

/// Has Slurm signal a job's steps as at `--signal=TERM@N`, once some have been made, but not when it goes on.
const STOPPED: &str = "[ -n \"$SLURM_RESTART_COUNT\" ] || { $SAVED; scancel --signal=TERM $SLURM_JOB_ID; } &";

/// Waits for a checkpoint: of old ones only the newest stay, so that no single one is there for long.
const SAVED: &str = "until ls run 2> /dev/null | grep -q checkpoint-; do sleep 0.02; done";

/// The script of docs/clusters.md.
#[test]
#[ignore = "minutes, and Slurm: make test-long"]
fn jobs_that_are_stopped_go_on_and_end_as_if_they_had_not() {
    let (Some(slurm), Some(mpich)) = (Slurm::start("queue"), mpich()) else { return };
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many/train --num-epochs 12";
    alone(&tiny, "alone", more);
    let train = dg_run(&format!("train {TRAIN} --output-dir run {more} --resume-from-checkpoint"));
    let script = format!(
        "#!/bin/bash\n\
         #SBATCH {RANKS}\n\
         #SBATCH --signal=TERM@120 --requeue\n\
         export DG_MPI={}\n\
         {}\n\
         srun --mpi=pmi2 --kill-on-bad-exit=1 {train}\n\
         code=$?; echo \"ended with $code\"\n\
         [ $code -ne 75 ] || scontrol requeue \"$SLURM_JOB_ID\"\n",
        mpich.display(),
        STOPPED.replace("$SAVED", SAVED)
    );
    let job = slurm.batch(&tiny.path(""), &script);
    slurm.wait_for("end with 75", DONE, |slurm| slurm.said().contains("ended with 75"));
    // Slurm would let two minutes pass, in which everything of the first start ends.
    slurm.wait_for("job in the queue", DONE, |slurm| slurm.state(&job) == "PENDING");
    slurm.wait_for("end of its daemons", DONE, |slurm| !slurm.has_leftovers());
    slurm.says(&format!("scontrol update JobId={job} StartTime=now"));
    slurm.wait_for("end", DONE, |slurm| slurm.said().contains("ended with 0"));
    slurm.wait_for("completed job", DONE, |slurm| slurm.state(&job) == "COMPLETED");
    assert_eq!(slurm.said().matches("ended with").count(), 2, "{}", slurm.said());
    assert_same_folders(&tiny.path("alone"), &tiny.path("run"), &[FINAL_ADAPTER]);
}

/// Slurm's variables in a batch script are those of a rank, which it is not.
#[test]
#[ignore = "minutes, and Slurm: make test-long"]
fn a_batch_script_without_a_step_is_one_process() {
    let Some(slurm) = Slurm::start("batch") else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = format!("#!/bin/bash\n#SBATCH {RANKS}\n{}\n", dg_run("dist check"));
    let job = slurm.batch(dir.path(), &script);
    slurm.wait_for("completed job", DONE, |slurm| slurm.state(&job) == "COMPLETED");
    let said = slurm.said();
    assert!(said.contains("1 rank, started by nothing") && said.contains("srun"), "{said}");
}

/// A rank that is killed in a step ends all, and the run goes on from what was saved.
#[test]
#[ignore = "minutes, and Slurm: make test-long"]
fn a_rank_that_is_killed_ends_its_step() {
    let (Some(slurm), Some(mpich)) = (Slurm::start("kill"), mpich()) else { return };
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many/train --num-epochs 12";
    alone(&tiny, "alone", more);
    let train = format!("train {TRAIN} --output-dir run {more} --resume-from-checkpoint");
    let mut command = slurm.command(&format!("srun {RANKS} --mpi=pmi2 --kill-on-bad-exit=1 sh -c"));
    command.current_dir(tiny.path("")).env("DG_MPI", &mpich).args([&*KILLED.replace("$SAVED", SAVED), "sh"]);
    command.args(dg_run(&train).split(' '));
    let began = Instant::now();
    let output = finished(command, DONE);
    let text = String::from_utf8_lossy(&output.stderr);
    let lost = text.contains("dg-run: rank 3 (gpu-1, ") && text.contains("Exited with exit code 6");
    let ended = !output.status.success() && text.contains("task 3: Killed");
    assert!(lost && ended, "{:?}: {text}", began.elapsed());
    let output = step(&slurm, &tiny, "--mpi=pmi2 --kill-on-bad-exit=1", &train, Some(&mpich));
    assert_ends(&output, 0, &["step "]);
    assert_same_folders(&tiny.path("alone"), &tiny.path("run"), &[FINAL_ADAPTER]);
}

/// A rank of which the last one kills itself when steps have been made.
const KILLED: &str = "[ $SLURM_PROCID != 3 ] || { $SAVED; kill -KILL $$; } & exec \"$@\"";
