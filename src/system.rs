//! Memory that this process may have: what the machine has available, less what limits of the process leave.
//!
//! A control group (cgroup) limits the memory of a container, a batch job or a service, at every level of its
//! hierarchy; the kernel ends a process that goes beyond, without a word. `/proc/meminfo` tells nothing of
//! such limits.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Memory of the process, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the machine has.
    pub total: u64,
    /// What can be allocated: the least of what the machine has available and what every limit leaves.
    pub available: u64,
    /// The limit that leaves the least; `None` where the process has none below what the machine has.
    pub limit: Option<Limit>,
}

/// A limit of a process or of a group of processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What sets it: the folder of a control group, or a limit that `ulimit` shows.
    pub of: String,
    /// Bytes that the limit allows.
    pub bytes: u64,
    /// Bytes of it that are used. The page cache, which the kernel gives up for any other use, does not
    /// count.
    pub used: u64,
}

impl Limit {
    /// Bytes that the limit leaves.
    pub fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }
}

impl Memory {
    /// Memory of this process; `None` on a system that does not say.
    pub fn of_process() -> Option<Self> {
        Self::read(Path::new("/"))
    }

    /// As [`of_process`](Self::of_process), from the file systems `proc` and `sys` below `root`.
    fn read(root: &Path) -> Option<Self> {
        let info = read(&root.join("proc/meminfo"))?;
        let (total, available) = (kib(&info, "MemTotal:")?, kib(&info, "MemAvailable:")?);
        let limits = control_groups(root).into_iter().chain(resource_limits(root));
        let limit = limits.filter(|limit| limit.bytes < total).min_by_key(Limit::left);
        let left = limit.as_ref().map_or(available, Limit::left);
        Some(Memory { total, available: available.min(left), limit })
    }
}

/// Bytes that can be allocated; all there could be where the system does not say.
pub fn available_memory() -> usize {
    let memory = Memory::of_process();
    memory.and_then(|memory| usize::try_from(memory.available).ok()).unwrap_or(usize::MAX)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number, as bytes, on the line that starts with `name`: `MemAvailable:  123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let number = field(text, name)?.parse::<u64>().ok()?;
    Some(number.saturating_mul(1024))
}

/// The first word after `name` at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// `ulimit -v` and `ulimit -d`.
fn resource_limits(root: &Path) -> Vec<Limit> {
    let file = |name| read(&root.join("proc/self").join(name)).unwrap_or_default();
    let (limits, status) = (file("limits"), file("status"));
    let limit = |(name, of, used): (&str, &str, &str)| {
        let bytes = field(&limits, name)?.parse().ok()?; // `unlimited` is no number
        Some(Limit { of: of.to_owned(), bytes, used: kib(&status, used)? })
    };
    let known = [
        ("Max address space", "RLIMIT_AS (ulimit -v)", "VmSize:"),
        ("Max data size", "RLIMIT_DATA (ulimit -d)", "VmData:"),
    ];
    known.into_iter().filter_map(limit).collect()
}

/// The limits of the process's control groups and of all groups above, in version 1 and 2 of their hierarchy:
/// a machine may have both.
fn control_groups(root: &Path) -> Vec<Limit> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let limits = |version| {
        let group = version_group(&groups, version)?;
        let mount = mounts.lines().find_map(|line| Mount::parse(line, version))?;
        Some(mount.levels(group).into_iter().filter_map(move |dir| version.limit(root, &dir)))
    };
    [Version::V1, Version::V2].into_iter().filter_map(limits).flatten().collect()
}

/// The process's group in the hierarchy that counts memory.
fn version_group(groups: &str, version: Version) -> Option<&Path> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':'); // number, controllers, group
        let (controllers, group) = (parts.nth(1)?, parts.next()?);
        let counts = match version {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => controllers.is_empty(),
        };
        counts.then_some(Path::new(group))
    })
}

/// Version of the control groups' interface.
#[derive(Clone, Copy)]
enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// Where a hierarchy is mounted.
struct Mount<'a> {
    /// The group that is seen there.
    root: &'a Path,
    point: &'a Path,
}

impl<'a> Mount<'a> {
    /// A line of `mountinfo`: number, parent, device, root, mount point, options, …, `-`, type, source,
    /// options.
    fn parse(line: &'a str, version: Version) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let fits = match version {
            Version::V1 => name == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::V2 => name == "cgroup2",
        };
        let mut place = place.split(' ').skip(3).map(Path::new);
        fits.then_some(Mount { root: place.next()?, point: place.next()? })
    }

    /// The folders of `group` and of the groups above that are seen here. A group outside of what is mounted,
    /// as in some containers, is taken for its root.
    fn levels(&self, group: &Path) -> Vec<PathBuf> {
        let below = group.strip_prefix(self.root).unwrap_or(Path::new(""));
        // Without the slash that the root's empty path would leave at the end.
        below.ancestors().map(|level| self.point.join(level).components().collect()).collect()
    }
}

impl Version {
    /// The limit of the group in the folder `dir`, if it has one.
    fn limit(self, root: &Path, dir: &Path) -> Option<Limit> {
        let folder = root.join(dir.strip_prefix("/").unwrap_or(dir));
        let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok(); // `max` is none
        let (bytes, used, reclaimable): (_, _, &[&str]) = match self {
            Version::V1 => (
                number("memory.limit_in_bytes"),
                number("memory.usage_in_bytes"),
                &["total_inactive_file ", "total_active_file "],
            ),
            Version::V2 => (
                // Beyond `high` a process is slowed down until it hardly runs.
                number("memory.max").into_iter().chain(number("memory.high")).min(),
                number("memory.current"),
                &["inactive_file ", "active_file ", "slab_reclaimable "],
            ),
        };
        let statistics = read(&folder.join("memory.stat")).unwrap_or_default();
        let cache = reclaimable.iter().filter_map(|name| field(&statistics, name)?.parse::<u64>().ok());
        let used = used?.saturating_sub(cache.sum());
        Some(Limit { of: dir.display().to_string(), bytes: bytes?, used })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A tree of files of a machine with 8000 MiB, of which 6000 are available.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(cgroup: &str, mountinfo: &str) -> Self {
            let machine = Machine(tempfile::tempdir().unwrap());
            machine
                .file(
                    "proc/meminfo",
                    &format!("MemTotal: {} kB\nMemAvailable: {} kB\n", 8000 << 10, 6000 << 10),
                )
                .file("proc/self/cgroup", cgroup)
                .file("proc/self/mountinfo", mountinfo);
            machine
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        /// Limit, usage and page cache in MiB.
        fn v1(&self, dir: &str, limit: u64, used: u64, cache: u64) -> &Self {
            // The first lines are those of the group without the ones below it.
            let statistics = format!(
                "inactive_file 7\nactive_file 7\ntotal_inactive_file {}\ntotal_active_file {}\n",
                cache * MIB / 2,
                cache * MIB / 2
            );
            self.file(&format!("{dir}/memory.limit_in_bytes"), &format!("{}\n", limit.saturating_mul(MIB)))
                .file(&format!("{dir}/memory.usage_in_bytes"), &format!("{}\n", used * MIB))
                .file(&format!("{dir}/memory.stat"), &statistics)
        }

        fn v2(&self, dir: &str, [max, high]: [&str; 2], used: u64, cache: u64) -> &Self {
            let bytes = |text: &str| match text.parse::<u64>() {
                Ok(mib) => format!("{}\n", mib * MIB),
                Err(_) => format!("{text}\n"),
            };
            let third = cache * MIB / 3;
            let statistics =
                format!("anon 5\ninactive_file {third}\nactive_file {third}\nslab_reclaimable {third}\n");
            self.file(&format!("{dir}/memory.max"), &bytes(max))
                .file(&format!("{dir}/memory.high"), &bytes(high))
                .file(&format!("{dir}/memory.current"), &format!("{}\n", used * MIB))
                .file(&format!("{dir}/memory.stat"), &statistics)
        }

        /// What is available, and the limit, in MiB.
        fn memory(&self) -> (u64, Option<(String, u64, u64)>) {
            let memory = Memory::read(self.0.path()).unwrap();
            assert_eq!(memory.total, 8000 * MIB);
            (memory.available / MIB, memory.limit.map(|l| (l.of, l.bytes / MIB, l.used / MIB)))
        }
    }

    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNTS: &str = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                             31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                             32 30 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

    fn limit(of: &str, bytes: u64, used: u64) -> Option<(String, u64, u64)> {
        Some((of.to_owned(), bytes, used))
    }

    #[test]
    fn without_a_limit_it_is_what_the_machine_has() {
        assert_eq!(Machine::new("0::/\n", V2_MOUNT).memory(), (6000, None));
        let unlimited = Machine::new("0::/a\n", V2_MOUNT);
        unlimited.v2("sys/fs/cgroup/a", ["max", "max"], 100, 30);
        assert_eq!(unlimited.memory(), (6000, None));
        // What version 1 says where there is no limit.
        let unlimited = Machine::new("4:memory:/a\n", V1_MOUNTS);
        unlimited.v1("sys/fs/cgroup/memory/a", u64::MAX, 100, 30);
        assert_eq!(unlimited.memory(), (6000, None));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Memory::read(empty.path()), None);
    }

    #[test]
    fn the_tightest_level_counts_without_its_page_cache() {
        let v2 = Machine::new("0::/slice/job/step\n", V2_MOUNT);
        v2.v2("sys/fs/cgroup/slice/job/step", ["max", "max"], 200, 30)
            .v2("sys/fs/cgroup/slice/job", ["1000", "max"], 600, 300)
            .v2("sys/fs/cgroup/slice", ["5000", "max"], 1600, 300);
        assert_eq!(v2.memory(), (700, limit("/sys/fs/cgroup/slice/job", 1000, 300)));
        v2.v2("sys/fs/cgroup/slice/job/step", ["max", "640"], 200, 30);
        assert_eq!(v2.memory(), (470, limit("/sys/fs/cgroup/slice/job/step", 640, 170)));
        v2.v2("sys/fs/cgroup/slice", ["5000", "max"], 4970, 0);
        assert_eq!(v2.memory(), (30, limit("/sys/fs/cgroup/slice", 5000, 4970)));

        let v1 = Machine::new("5:cpu,cpuacct:/a\n4:memory:/a/b\n", V1_MOUNTS);
        v1.v1("sys/fs/cgroup/memory/a/b", u64::MAX, 50, 10).v1("sys/fs/cgroup/memory/a", 250, 120, 40);
        assert_eq!(v1.memory(), (170, limit("/sys/fs/cgroup/memory/a", 250, 80)));
    }

    #[test]
    fn a_machine_may_have_both_versions() {
        let mounts = format!("{V1_MOUNTS}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let hybrid = Machine::new("4:memory:/a\n0::/b\n", &mounts);
        // Version 2 has no files of a controller that version 1 has.
        hybrid.v1("sys/fs/cgroup/memory/a", 400, 100, 0).file("sys/fs/cgroup/unified/b/cgroup.procs", "1\n");
        assert_eq!(hybrid.memory(), (300, limit("/sys/fs/cgroup/memory/a", 400, 100)));
    }

    #[test]
    fn a_container_may_see_only_its_own_group() {
        // Version 1 without a namespace: the paths are those of the host, what is mounted is the container's.
        let mount = "32 30 0:28 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let docker = Machine::new("4:memory:/docker/x\n", mount);
        docker.v1("sys/fs/cgroup/memory", 500, 100, 20);
        assert_eq!(docker.memory(), (420, limit("/sys/fs/cgroup/memory", 500, 80)));
        // A process that was moved to a group beside the namespace's root.
        let moved = Machine::new("0::/../y\n", V2_MOUNT.replace("/ /sys", "/x /sys").as_str());
        moved.v2("sys/fs/cgroup", ["300", "max"], 100, 0);
        assert_eq!(moved.memory(), (200, limit("/sys/fs/cgroup", 300, 100)));
    }

    #[test]
    fn limits_of_the_process_itself_count() {
        let machine = Machine::new("", "");
        let limits = |space: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max data size             unlimited            unlimited            bytes\n\
                 Max address space         {space}           unlimited            bytes\n"
            )
        };
        machine.file("proc/self/status", "VmPeak: 9 kB\nVmSize:\t 204800 kB\nVmData:\t 1024 kB\n");
        machine.file("proc/self/limits", &limits("unlimited"));
        assert_eq!(machine.memory(), (6000, None));
        machine.file("proc/self/limits", &limits(&(1000 * MIB).to_string()));
        assert_eq!(machine.memory(), (800, limit("RLIMIT_AS (ulimit -v)", 1000, 200)));
    }

    #[test]
    fn nothing_is_left_of_a_limit_that_is_exceeded() {
        let machine = Machine::new("0::/\n", V2_MOUNT);
        machine.v2("sys/fs/cgroup", ["100", "max"], 150, 0);
        assert_eq!(machine.memory(), (0, limit("/sys/fs/cgroup", 100, 150)));
    }
}
