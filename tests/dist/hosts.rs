//! Ranks that MPI's launchers start on two machines, by the lines of docs/clusters.md. What stands for ssh
//! enters the other network namespace.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use deepguard::adapter::FINAL_ADAPTER;

use super::check::assert_ends;
use super::machines::Machines;
use super::mpi::{Kind, Mpi, finished};
use super::train::{TRAIN, alone, assert_same_folders, tiny_with_pairs};

/// Two ranks on each machine, of which the first is this one.
const LAUNCHERS: [(Kind, &str, &str); 2] = [
    (Kind::Mpich, "libmpi.so.12", "mpiexec -n 4 -ppn 2 -hosts gpu-0,gpu-1"),
    (
        Kind::OpenMpi,
        "libmpi.so.40",
        "mpirun --allow-run-as-root -np 4 --map-by ppr:2:node --host gpu-0:2,gpu-1:2 -x DG_MPI",
    ),
];

/// A folder with a program `ssh` that starts what it is given on one of the machines.
fn ssh(machines: &Machines) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap());
    let mut script = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\ncase $1 in\n".to_owned();
    for (machine, name) in ["gpu-0", "gpu-1"].iter().enumerate() {
        let shell = machines.on(machine, "sh");
        let words: Vec<String> =
            [shell.get_program()].into_iter().chain(shell.get_args()).map(quoted).collect();
        script += &format!("{name}) shift; exec {} -c \"$*\";;\n", words.join(" "));
    }
    script += "esac\nexit 255\n";
    let path = folder.path().join("ssh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A launcher's line on the first machine, which finds the program `ssh` in a folder.
fn launched(machines: &Machines, mpi: &Mpi, line: &str, ssh: &Path) -> Command {
    let (program, options) = line.split_once(' ').unwrap();
    let mut command = machines.on(0, mpi.program(program).to_str().unwrap());
    command.args(options.split(' ')).arg(env!("CARGO_BIN_EXE_dg-run")).envs(mpi.prefixes());
    command.env("PATH", format!("{}:{}", ssh.display(), std::env::var("PATH").unwrap()));
    command.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

#[test]
fn launchers_of_mpi_train_on_two_machines() {
    let Some(machines) = Machines::with_names("mpi") else { return };
    let ssh = ssh(&machines);
    let tiny = tiny_with_pairs();
    let more = "--device cpu --data many/train --num-epochs 1";
    alone(&tiny, "alone", more);
    for (kind, library, line) in LAUNCHERS {
        let Some(mpi) = Mpi::find(kind) else { return };
        let run = |arguments: &str| {
            let mut command = launched(&machines, &mpi, line, ssh.path());
            command.args(arguments.split_whitespace()).current_dir(tiny.path(""));
            command.env("DG_MPI", mpi.library(library));
            finished(command, Duration::from_secs(60))
        };
        let table = ["    0  gpu-0 ", "    1  gpu-0 ", "    2  gpu-1 ", "    3  gpu-1 ", "sum of 64 MiB: "];
        assert_ends(&run("dist check"), 0, &table);
        let train = format!("train {TRAIN} --output-dir {library} {more} --resume-from-checkpoint");
        assert_ends(&run(&train), 0, &["4 ranks, of which this is the first"]);
        assert_same_folders(&tiny.path("alone"), &tiny.path(library), &[FINAL_ADAPTER, "checkpoint-4"]);
    }
}
