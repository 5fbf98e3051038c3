//! Ranks on two machines, which are network namespaces with names of their own: what they make of a broken
//! connection, and of names that lead somewhere only later.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::check::{Running, assert_ends};
use super::required::not_tested;

/// Two machines and a cable; gone when dropped.
pub struct Machines {
    /// Names of the namespaces, and of the ends of the cable in them.
    names: [String; 2],
    dir: tempfile::TempDir,
}

/// Addresses of a private network; namespaces see no other.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

fn ip(arguments: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

impl Machines {
    /// `None`, after saying so, where none can be had.
    fn start(test: &str) -> Option<Self> {
        let id = std::process::id();
        let names = ["a", "b"].map(|end| format!("dg-{test}{end}{id}"));
        let machines = Machines { names, dir: tempfile::tempdir().unwrap() };
        match machines.connect() {
            Ok(()) => Some(machines),
            Err(error) => {
                not_tested(&format!("network namespaces, which root makes with iproute2's ip: {error}"));
                None
            }
        }
    }

    /// The same, who know each other's names.
    pub fn with_names(test: &str) -> Option<Self> {
        let machines = Machines::start(test)?;
        for (machine, address) in ADDRESSES.iter().enumerate() {
            append(&machines.hosts(), &format!("{address} gpu-{machine}\n"));
        }
        Some(machines)
    }

    fn connect(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        for name in &self.names {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            std::fs::write(self.hosts(), "127.0.0.1 localhost\n").unwrap();
        }
        ip(&format!("link add eth0 netns {a} type veth peer name eth0 netns {b}"))?;
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
        }
        Ok(())
    }

    /// What stands in for `/etc/hosts` on both machines.
    fn hosts(&self) -> std::path::PathBuf {
        self.dir.path().join("hosts")
    }

    /// A program on a machine, which is called `gpu-0` or `gpu-1`.
    pub fn on(&self, machine: usize, program: &str) -> Command {
        const ENTER: &str = "hostname \"$0\" && mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
        let net = format!("--net=/run/netns/{}", self.names[machine]);
        let mut command = Command::new("nsenter");
        command
            .args([&net, "unshare", "--mount", "--uts", "sh", "-c", ENTER, &format!("gpu-{machine}")])
            .arg(self.hosts())
            .arg(program);
        command
    }

    /// `dg-run dist check` as a rank on a machine.
    fn rank(&self, machine: usize, rank: usize, world: usize, arguments: &str) -> Running {
        let mut command = self.on(machine, env!("CARGO_BIN_EXE_dg-run"));
        command
            .args(["dist", "check", "--world-size", &world.to_string(), "--rank", &rank.to_string()])
            .args(arguments.split(' '))
            .env("DG_DIST_TOKEN", "of this test");
        Running::start(command, self.dir.path().join(format!("errors-{rank}")))
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

const PORT: u16 = 29_500;

#[test]
fn machines_that_lose_each_other_end_on_both_sides() {
    for (test, broken) in [("cut", "link set eth0 down"), ("deny", "route add prohibit 10.77.0.2/32")] {
        let Some(machines) = Machines::start(test) else { return };
        let arguments = format!("--rendezvous {}:{PORT} --seconds 60 --stall-timeout 6", ADDRESSES[0]);
        let ranks = [0, 0, 1].into_iter().enumerate();
        let ranks: Vec<Running> =
            ranks.map(|(rank, machine)| machines.rank(machine, rank, 3, &arguments)).collect();
        ranks[0].wait_for(3);
        ip(&format!("-n {} {broken}", machines.names[0])).unwrap();
        let began = Instant::now();
        for (rank, running) in ranks.into_iter().enumerate() {
            let lost = if rank == 2 { "rank 0 (gpu-0, pid " } else { "rank 2 (gpu-1, pid " };
            let parts = [lost, "was lost", "nothing was heard of it for 2 s"];
            assert_ends(&running.end(), 6, &parts);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{broken}: {:?}", began.elapsed());
    }
}

#[test]
fn names_may_appear_late() {
    let Some(machines) = Machines::start("late") else { return };
    let arguments = format!("--rendezvous train-0.train:{PORT} --dist-timeout 20");
    let mut ranks = [0, 1].map(|rank| machines.rank(rank, rank, 2, &arguments));
    thread::sleep(Duration::from_millis(1500));
    ranks.iter_mut().for_each(|rank| assert!(rank.child.try_wait().unwrap().is_none(), "a rank has ended"));
    append(&machines.hosts(), &format!("{} train-0.train\n", ADDRESSES[0]));
    for rank in ranks {
        assert_ends(&rank.end(), 0, &[]);
    }
}

/// In place: the machines see this very file.
fn append(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_name_that_leads_to_loopback_is_told() {
    let Some(machines) = Machines::start("loop") else { return };
    // As Debian has it for a machine's own name.
    append(&machines.hosts(), "127.0.1.1 gpu-0\n");
    let rank = machines.rank(0, 0, 2, &format!("--rendezvous gpu-0:{PORT} --dist-timeout 1"));
    let parts = ["waiting for rank 1 of 2", "127.0.1.1:29500, which no other machine can reach"];
    assert_ends(&rank.end(), 6, &parts);
}
