//! Measures what one contender does: wall clock, the destination on disk, processor time and peak memory of all its processes.
//!
//! Every contender lives in a control group of its own, with all that it starts (its ssh server, its daemons and their workers):
//! nothing of it is missed and nothing of another is counted. Kernel threads are nobody's, and are not in it.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two looks at memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Reading {
    /// Until the contender said it was done, in seconds.
    pub wall_s: f64,
    /// Until the destinations were on disk too, in seconds.
    pub durable_s: f64,
    /// Processor time of all its processes, in seconds.
    pub cpu_s: f64,
    /// Most memory of all of them together, in bytes; a page that several share counts once (PSS).
    pub peak_bytes: u64,
}

/// The control group of a contender.
pub struct Group {
    dir: PathBuf,
}

impl Group {
    pub fn new(name: &str) -> Group {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let found = fields.find_map(|mut line| {
            let at = line.nth(1)?;
            (line.next()? == "cgroup2").then(|| at.to_owned())
        });
        let top = found.expect("control groups of version 2, mounted");
        let dir = Path::new(&top).join(format!("standin-bench-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Group { dir }
    }

    /// A command that runs in the group, with all it starts.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let enter = "echo 0 > \"$1\" && shift && exec \"$@\"";
        command
            .args(["-c", enter, "sh"])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program);
        command
    }

    fn cpu_s(&self) -> f64 {
        let text = fs::read_to_string(self.dir.join("cpu.stat")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        line.unwrap().parse::<f64>().unwrap() / 1e6
    }

    fn memory_bytes(&self) -> u64 {
        let pids = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let kib = |pid: &str| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        pids.lines().filter_map(kib).sum::<u64>() << 10
    }

    /// Runs `work`, which ends when the contender says it is done, and waits until `destinations` are on disk.
    pub fn measure(&self, destinations: &[&Path], work: impl FnOnce()) -> Reading {
        let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    peak.fetch_max(self.memory_bytes(), Ordering::Relaxed);
                    std::thread::park_timeout(LOOK_EVERY);
                }
            });
            let (cpu, began) = (self.cpu_s(), Instant::now());
            work();
            let wall_s = began.elapsed().as_secs_f64();
            for destination in destinations {
                let dir = fs::File::open(destination).unwrap();
                rustix::fs::syncfs(dir.as_fd()).unwrap();
            }
            let durable_s = began.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            Reading {
                wall_s,
                durable_s,
                cpu_s: self.cpu_s() - cpu,
                peak_bytes: peak.load(Ordering::Relaxed),
            }
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty when every process of it has ended; its owner ended them before.
        let _ = fs::remove_dir(&self.dir);
    }
}
