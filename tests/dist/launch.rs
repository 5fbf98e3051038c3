//! The environments of launchers, as they were seen, and wrong ones.

use deepguard::ErrorKind;
use deepguard::dist::launch::{Flags, Launch, Rendezvous, Variables};

/// Variables as a shell would list them.
fn variables(list: &str) -> Variables {
    list.split_whitespace().map(|pair| pair.split_once('=').expect("NAME=VALUE")).collect()
}

/// `--world-size`, `--rank` and `--rendezvous` of a command line.
fn flags(line: &str) -> Flags {
    let mut flags = Flags::default();
    let words: Vec<&str> = line.split_whitespace().collect();
    for pair in words.chunks(2) {
        match pair[0] {
            "--world-size" => flags.world_size = Some(pair[1].parse().unwrap()),
            "--rank" => flags.rank = Some(pair[1].parse().unwrap()),
            _ => flags.rendezvous = Some(pair[1].to_owned()),
        }
    }
    flags
}

/// `launcher rank/world local_rank/local_world rendezvous token`.
fn shown(launch: &Launch) -> String {
    let Launch { launcher, rank, world, local_rank, local_world, rendezvous, token, .. } = launch;
    let rendezvous = rendezvous.as_ref().map_or("-".to_owned(), Rendezvous::to_string);
    let token = token.as_deref().unwrap_or("-").replace(' ', "/");
    format!("{launcher:?} {rank}/{world} {local_rank}/{local_world} {rendezvous} {token}")
        .replace("where MPI says", "mpi")
}

/// Rank 3 of `torchrun --nnodes=2 --nproc-per-node=2 --max-restarts=3`, release 2.15, after a restart.
const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=1 GROUP_WORLD_SIZE=2 \
                        ROLE_NAME=default ROLE_RANK=3 ROLE_WORLD_SIZE=4 MASTER_ADDR=gpu-01 MASTER_PORT=29500 \
                        TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=1 TORCHELASTIC_MAX_RESTARTS=3 \
                        TORCHELASTIC_USE_AGENT_STORE=True TORCH_NCCL_ASYNC_ERROR_HANDLING=1 \
                        TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT OMP_NUM_THREADS=1 \
                        TORCHELASTIC_ERROR_FILE=/tmp/torchelastic_ci/none_lz/attempt_1/1/error.json";
const STEP: &str = "SLURM_JOB_ID=40017 SLURM_STEP_ID=2 SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=5 SLURM_NTASKS=5 \
                    SLURM_LOCALID=1 SLURM_NODEID=1 SLURM_STEP_NODELIST=node[0-1,3] \
                    SLURM_STEP_TASKS_PER_NODE=2(x2),1";
const BATCH: &str = "SLURM_JOB_ID=40017 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_NODEID=0 SLURM_LOCALID=0";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 \
                        OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_NODE_RANK=1 OMPI_UNIVERSE_SIZE=2 \
                        OMPI_WORLD_SIZE=2 OMPI_WORLD_LOCAL_SIZE=2 PMIX_RANK=1";
const MPICH: &str = "PMI_RANK=1 PMI_SIZE=2 PMI_FD=11 PMI_HOSTNAME=vm MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2";

/// The last of two equal names counts, as in a map.
fn with(base: &str, more: &str) -> String {
    format!("{base} {more}")
}

fn without(base: &str, name: &str) -> String {
    let kept = base.split_whitespace().filter(|pair| !pair.starts_with(&format!("{name}=")));
    kept.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_launcher_says_which_rank_this_is() {
    let pmi_of_slurm = "PMI_RANK=3 PMI_SIZE=5";
    for (line, environment, expected) in [
        // Alone.
        ("", "", "Single 0/1 0/1 - -"),
        ("", "PATH=/bin OMP_NUM_THREADS=1 MASTER_ADDR=left-over LOCAL_RANK=2", "Single 0/1 0/1 - -"),
        ("", "DG_RENDEZVOUS=file:/d DG_DIST_TOKEN=t", "Single 0/1 0/1 - -"),
        // torchrun listens at MASTER_PORT itself.
        ("", TORCHRUN, "Torch 3/4 1/2 gpu-01:29501 torchrun/none/1"),
        // With --rdzv-backend=c10d or --standalone it chooses a port.
        (
            "",
            &with(TORCHRUN, "TORCHELASTIC_RUN_ID=job7 MASTER_PORT=35747"),
            "Torch 3/4 1/2 gpu-01:35748 torchrun/job7/1",
        ),
        ("", &with(TORCHRUN, "DG_DIST_TOKEN=secret"), "Torch 3/4 1/2 gpu-01:29501 secret"),
        ("", &with(TORCHRUN, "DG_DIST_TOKEN="), "Torch 3/4 1/2 gpu-01:29501 torchrun/none/1"),
        ("", &with(TORCHRUN, "MASTER_ADDR=fd00::7"), "Torch 3/4 1/2 [fd00::7]:29501 torchrun/none/1"),
        ("--rendezvous head:7000", TORCHRUN, "Torch 3/4 1/2 head:7000 torchrun/none/1"),
        ("", &with(TORCHRUN, "DG_RENDEZVOUS=file:/shared"), "Torch 3/4 1/2 file:/shared torchrun/none/1"),
        (
            "--rendezvous head:7000",
            &with(TORCHRUN, "DG_RENDEZVOUS=file:/d"),
            "Torch 3/4 1/2 head:7000 torchrun/none/1",
        ),
        // A PyTorchJob has no local ranks, and nobody listens at its port.
        (
            "",
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=job-master-0 MASTER_PORT=23456",
            "Torch 1/2 0/1 job-master-0:23456 -",
        ),
        ("", "RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=1", "Torch 1/4 1/2 a:1 -"),
        ("", "RANK=0 WORLD_SIZE=1", "Torch 0/1 0/1 - -"),
        ("", "RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=x", "Torch 0/1 0/1 - -"),
        // MPI tells where rank 0 is.
        ("", OPEN_MPI, "OpenMpi 1/2 1/2 mpi -"),
        ("", &with(OPEN_MPI, "MASTER_ADDR=a MASTER_PORT=5 DG_DIST_TOKEN=t"), "OpenMpi 1/2 1/2 a:5 t"),
        ("", &with(OPEN_MPI, "MASTER_ADDR=left-over"), "OpenMpi 1/2 1/2 mpi -"),
        ("", MPICH, "Pmi 1/2 1/2 mpi -"),
        ("", "PMI_RANK=1 PMI_SIZE=2", "Pmi 1/2 0/1 mpi -"),
        ("", &with(OPEN_MPI, MPICH), "OpenMpi 1/2 1/2 mpi -"),
        // torchrun by mpirun, one on each machine.
        ("", &with(TORCHRUN, OPEN_MPI), "Torch 3/4 1/2 gpu-01:29501 torchrun/none/1"),
        // A step of Slurm: 20000 + 40017 mod 20000 + 2.
        ("", STEP, "Slurm 3/5 1/2 node0:20019 slurm/40017.2/0"),
        (
            "",
            &with(STEP, "SLURM_PROCID=4 SLURM_NODEID=2 SLURM_LOCALID=0"),
            "Slurm 4/5 0/1 node0:20019 slurm/40017.2/0",
        ),
        ("", &with(STEP, "SLURM_RESTART_COUNT=1"), "Slurm 3/5 1/2 node0:20019 slurm/40017.2/1"),
        ("--rendezvous [::1]:90", STEP, "Slurm 3/5 1/2 [::1]:90 slurm/40017.2/0"),
        (
            "",
            &with(STEP, "SLURM_JOB_ID=39999 SLURM_STEP_ID=60000"),
            "Slurm 3/5 1/2 node0:59999 slurm/39999.60000/0",
        ),
        // srun --mpi=pmi2: the same ranks by two names; mpirun in a job: Slurm's tasks are its daemons.
        ("", &with(STEP, pmi_of_slurm), "Pmi 3/5 0/1 node0:20019 slurm/40017.2/0"),
        ("", &with(STEP, "PMI_RANK=9 PMI_SIZE=16"), "Pmi 9/16 0/1 mpi slurm/40017.2/0"),
        // Scripts of a job are no steps of it.
        ("", BATCH, "Single 0/1 0/1 - -"),
        ("", &with(BATCH, "SLURM_STEP_ID=4294967291"), "Single 0/1 0/1 - -"),
        ("", &with(BATCH, "SLURM_STEP_ID=4294967290"), "Single 0/1 0/1 - -"),
        // An indexed Job of Kubernetes.
        ("", "JOB_COMPLETION_INDEX=2", "Single 0/1 0/1 - -"),
        (
            "--world-size 4 --rendezvous train-0.train:29500",
            "JOB_COMPLETION_INDEX=2 DG_DIST_TOKEN=t",
            "Kubernetes 2/4 0/1 train-0.train:29500 t",
        ),
        (
            "--world-size 4",
            "JOB_COMPLETION_INDEX=2 MASTER_ADDR=a.b MASTER_PORT=8",
            "Kubernetes 2/4 0/1 a.b:8 -",
        ),
        // Flags come first.
        ("--world-size 2 --rank 1 --rendezvous file:/d", STEP, "Flags 1/2 0/1 file:/d -"),
        ("--world-size 2 --rank 1 --rendezvous 10.0.0.1:5", TORCHRUN, "Flags 1/2 1/2 10.0.0.1:5 -"),
        ("--world-size 1 --rank 0", "", "Flags 0/1 0/1 - -"),
    ] {
        let launch = Launch::of(&flags(line), &variables(environment));
        let launch = launch.unwrap_or_else(|e| panic!("{line} {environment}: {e}"));
        assert_eq!(shown(&launch), expected, "{line} {environment}");
    }
}

#[test]
fn whoever_may_have_meant_more_processes_is_told() {
    for (environment, part) in [
        (BATCH, "srun starts all 4 tasks"),
        (&*with(BATCH, "SLURM_STEP_ID=4294967290"), "srun starts all 4 tasks"),
        ("JOB_COMPLETION_INDEX=2", "--world-size"),
    ] {
        let note = Launch::of(&Flags::default(), &variables(environment)).unwrap().note.unwrap();
        assert!(note.contains(part), "{environment}: {note}");
    }
    for environment in ["", TORCHRUN, STEP, "SLURM_JOB_ID=7 SLURM_NTASKS=1"] {
        assert_eq!(
            Launch::of(&Flags::default(), &variables(environment)).unwrap().note,
            None,
            "{environment}"
        );
    }
}

#[test]
fn what_is_wrong_is_named_with_its_value() {
    let many = "99999999999999999999999";
    for (line, environment, parts) in [
        ("", "RANK=1", "RANK: found 1|no WORLD_SIZE|--dist none"),
        ("", "WORLD_SIZE=2", "WORLD_SIZE: found 2|no RANK"),
        ("", "RANK=x WORLD_SIZE=2", "RANK: expected a number|\"x\""),
        ("", "RANK= WORLD_SIZE=2", "RANK: expected a number|\"\""),
        ("", "RANK=-1 WORLD_SIZE=2", "RANK: expected a number|\"-1\""),
        ("", "RANK=0 WORLD_SIZE=two", "WORLD_SIZE: expected a number|\"two\""),
        ("", &format!("RANK=0 WORLD_SIZE={many}"), "WORLD_SIZE: expected a number|99999"),
        ("", "RANK=2 WORLD_SIZE=2", "RANK: expected a rank below 2|found 2"),
        ("", "RANK=0 WORLD_SIZE=0", "WORLD_SIZE: expected 1 to|found 0"),
        ("", "RANK=0 WORLD_SIZE=1000000", "WORLD_SIZE: expected 1 to|found 1000000"),
        ("", &with(TORCHRUN, "LOCAL_RANK=2"), "LOCAL_RANK: expected a rank below 2|found 2"),
        ("", &with(TORCHRUN, "LOCAL_WORLD_SIZE=8"), "LOCAL_WORLD_SIZE: expected at most 4|found 8"),
        ("", &with(TORCHRUN, "LOCAL_RANK=one"), "LOCAL_RANK: expected a number|\"one\""),
        ("", &with(TORCHRUN, "MASTER_PORT=65535"), "MASTER_PORT: expected a TCP port|\"65535\""),
        ("", &with(TORCHRUN, "MASTER_PORT=http"), "MASTER_PORT: expected a number|\"http\""),
        ("", &with(TORCHRUN, "MASTER_ADDR="), "MASTER_ADDR: expected the machine|\"\""),
        ("", &without(TORCHRUN, "MASTER_PORT"), "MASTER_ADDR: found \"gpu-01\"|no MASTER_PORT"),
        ("", &without(TORCHRUN, "MASTER_ADDR"), "rank 3 of 4|no MASTER_ADDR|--rendezvous"),
        ("", "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=0", "MASTER_PORT: expected a TCP port|\"0\""),
        ("", &with(TORCHRUN, "DG_RENDEZVOUS=nowhere"), "DG_RENDEZVOUS: expected HOST:PORT|\"nowhere\""),
        ("", "OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_RANK: found 1|no OMPI_COMM_WORLD_SIZE"),
        (
            "",
            "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=1",
            "OMPI_COMM_WORLD_RANK: expected a rank below 1",
        ),
        ("", "PMI_SIZE=2", "PMI_SIZE: found 2|no PMI_RANK"),
        (
            "",
            "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=2 MPI_LOCALNRANKS=2",
            "MPI_LOCALRANKID: expected a rank below 2",
        ),
        ("", &without(STEP, "SLURM_PROCID"), "SLURM_PROCID: expected it of a step"),
        ("", &without(STEP, "SLURM_STEP_NUM_TASKS"), "SLURM_STEP_NUM_TASKS: expected it of a step"),
        ("", &without(STEP, "SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST: expected it of a step"),
        ("", &without(STEP, "SLURM_JOB_ID"), "SLURM_JOB_ID: expected it of a step"),
        ("", &with(STEP, "SLURM_PROCID=5"), "SLURM_PROCID: expected a rank below 5|found 5"),
        ("", &with(STEP, "SLURM_STEP_ID=abc"), "SLURM_STEP_ID: expected a number|\"abc\""),
        ("", &with(STEP, "SLURM_STEP_NODELIST=node[3-"), "SLURM_STEP_NODELIST: expected|\"node[3-\""),
        ("", &with(STEP, "SLURM_STEP_TASKS_PER_NODE=2x2"), "SLURM_STEP_TASKS_PER_NODE: expected|\"2x2\""),
        ("", &with(STEP, "SLURM_LOCALID=2"), "SLURM_LOCALID: expected a rank below 2|found 2"),
        ("--rank 1", "", "--rank: found 1|no --world-size"),
        ("--world-size 4", "", "--world-size: found 4|--rank"),
        ("--world-size 4", TORCHRUN, "--world-size: found 4|--rank"),
        ("--world-size 4 --rank 4", "", "--rank: expected a rank below 4|found 4"),
        ("--world-size 0 --rank 0", "", "--world-size: expected 1 to|found 0"),
        ("--world-size 4 --rank 1", "", "rank 1 of 4|--rendezvous HOST:PORT"),
        ("--world-size 2", "JOB_COMPLETION_INDEX=2", "JOB_COMPLETION_INDEX: expected a rank below 2|found 2"),
        ("--world-size 2", "JOB_COMPLETION_INDEX=1", "rank 1 of 2|--rendezvous"),
        ("--rendezvous a:5", "", "--rendezvous: found a:5|--world-size and --rank"),
        ("--world-size 2 --rank 1 --rendezvous a", "", "--rendezvous: expected HOST:PORT|\"a\""),
        ("--world-size 2 --rank 1 --rendezvous a:0", "", "--rendezvous: expected HOST:PORT|\"a:0\""),
        ("--world-size 2 --rank 1 --rendezvous a:70000", "", "--rendezvous: expected HOST:PORT|\"a:70000\""),
        ("--world-size 2 --rank 1 --rendezvous ::1:80", "", "[ADDRESS]:PORT for IPv6|\"::1:80\""),
        ("--world-size 2 --rank 1 --rendezvous http://a:80", "", "expected HOST:PORT|\"http://a:80\""),
        ("--world-size 2 --rank 1 --rendezvous file:", "", "or file:DIR|\"file:\""),
    ] {
        let error = Launch::of(&flags(line), &variables(environment)).expect_err(environment);
        assert_eq!(error.kind(), ErrorKind::Usage, "{line} {environment}: {error}");
        let text = error.to_string();
        for part in parts.split('|') {
            assert!(text.contains(part), "{line} {environment}: no {part:?} in {text:?}");
        }
    }
}

#[test]
fn mpi_is_there_for_whoever_was_started_by_it() {
    for (environment, by_mpi) in [
        (OPEN_MPI, true),
        (MPICH, true),
        (&*with(STEP, "PMIX_RANK=3"), true),
        (STEP, false),
        (TORCHRUN, false),
        ("", false),
    ] {
        let launch = Launch::of(&Flags::default(), &variables(environment)).unwrap();
        assert_eq!(launch.by_mpi, by_mpi, "{environment}");
    }
}
