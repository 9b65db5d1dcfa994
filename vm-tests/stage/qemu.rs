//! The command line of one machine, its monitor (QMP), and whether the kernel's own virtualisation works here.
//!
//! Promise: a machine ends with this process, whatever ends it. Emulation leaves out what QEMU 7.2 gets wrong: with cmpxchg16b
//! on, five of eight boots crashed; 57-bit addresses it does not emulate well either.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

pub const QEMU: &str = "qemu-system-x86_64";

/// How long a kernel may take to find out that it has no root, where virtualisation works.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// For a monitor to be there, and to answer.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);

/// What one start of a machine needs to know.
pub struct Plan<'a> {
    pub name: &'a str,
    /// 1 and up: its address is 10.9.0.number.
    pub number: u8,
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    pub root: PathBuf,
    pub tools: PathBuf,
    pub disks: Vec<PathBuf>,
    pub agent: PathBuf,
    pub monitor: PathBuf,
    pub console: PathBuf,
    pub journal: PathBuf,
    pub wire: PathBuf,
    /// What its clock shows at the start.
    pub clock: Timestamp,
    /// A machine that was saved to this file goes on, and none boots.
    pub saved: Option<&'a Path>,
}

impl Plan<'_> {
    /// The whole command line; `person`: with a console on this terminal, and no network.
    pub fn words(&self, person: bool) -> Vec<String> {
        let mut words = accelerated(is_virtual());
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        // One processor: with two QEMU 10.0 loses timers of the second, or itself (`iotlb_to_section`), in one boot of ten.
        add("-smp", "1".into());
        add("-m", "768".into());
        add("-nodefaults", "-no-user-config".into());
        add("-display", "none".into());
        add("-kernel", shown(self.kernel));
        add("-initrd", shown(self.initrd));
        add("-append", self.append(person));
        let root = shown(&self.root);
        // Writeback, as the data disks: power that is cut takes what was not flushed, the state of standin among it.
        add(
            "-drive",
            format!("file={root},if=none,id=root,format=qcow2,cache=writeback"),
        );
        // The first of its disks: vm-tests/image/first-root counts on it.
        add("-device", "virtio-blk-pci,drive=root,serial=root".into());
        add("-device", "virtio-rng-pci".into());
        let tools = shown(&self.tools);
        add(
            "-drive",
            format!("file={tools},if=none,id=tools,format=raw,readonly=on"),
        );
        add("-device", "virtio-blk-pci,drive=tools,serial=tools".into());
        for (at, disk) in self.disks.iter().enumerate() {
            let disk = shown(disk);
            add(
                "-drive",
                format!("file={disk},if=none,id=d{at},format=qcow2,cache=writeback,discard=unmap"),
            );
            add(
                "-device",
                format!("virtio-blk-pci,drive=d{at},serial=disk{at}"),
            );
        }
        add("-device", "virtio-serial-pci".into());
        add(
            "-chardev",
            format!("file,id=journal,append=on,path={}", shown(&self.journal)),
        );
        add(
            "-device",
            "virtserialport,chardev=journal,name=org.standin.journal".into(),
        );
        if person {
            add("-serial", "mon:stdio".into());
            return words;
        }
        // Its clocks are one: the one that survives a reboot stands still with the others when the machine is paused.
        let clock = self.clock.strftime("%Y-%m-%dT%H:%M:%S");
        add("-rtc", format!("base={clock},clock=vm"));
        if let Some(saved) = self.saved {
            add("-incoming", format!("file:{}", shown(saved)));
        }
        add(
            "-chardev",
            format!(
                "socket,id=agent,path={},server=on,wait=off",
                shown(&self.agent)
            ),
        );
        add(
            "-device",
            "virtserialport,chardev=agent,name=org.standin.agent".into(),
        );
        add(
            "-chardev",
            format!("file,id=console,append=on,path={}", shown(&self.console)),
        );
        add("-serial", "chardev:console".into());
        add(
            "-qmp",
            format!("unix:{},server=on,wait=off", shown(&self.monitor)),
        );
        let wire = shown(&self.wire);
        add(
            "-netdev",
            format!("stream,id=n0,server=off,addr.type=unix,addr.path={wire}"),
        );
        add(
            "-device",
            format!(
                "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:{:02x}",
                self.number
            ),
        );
        words
    }

    fn append(&self, person: bool) -> String {
        let number = self.number;
        let quiet = if person {
            ""
        } else {
            " quiet systemd.getty_auto=0"
        };
        format!(
            "root=/dev/vda rw rootfstype=ext4 console=ttyS0 net.ifnames=0 mitigations=off nokaslr panic=-1 \
             random.trust_cpu=on cryptomgr.notests systemd.show_status=0 audit=0 nowatchdog no_timer_check \
             rcupdate.rcu_expedited=1 init_on_alloc=0 apparmor=0 systemd.hostname={} systemd.machine_id=5717a4d1000040008000000000000{number:03} \
             stage.address=10.9.0.{number}/24{}{quiet}",
            self.name,
            counter()
        )
    }

    pub fn start(&self) -> Child {
        let mut command = bound();
        command
            .args(self.words(false))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().unwrap()
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn accelerated(by_kvm: bool) -> Vec<String> {
    let words = if by_kvm {
        ["-machine", "q35", "-accel", "kvm", "-cpu", "host"]
    } else {
        [
            "-machine",
            "q35,hpet=off",
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            // Without what makes an emulated kernel copy byte by byte (erms and its kin), and change its view of memory at every
            // system call (smap, smep): on ZFS `standin run` took 8.0 s in place of 11.6 s, a hand-over 38 s in place of 42 s
            // (single runs, with AppArmor and the clearing of pages off too).
            "max,la57=off,cx16=off,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off,smap=off,smep=off",
        ]
    };
    words.map(String::from).to_vec()
}

/// QEMU that ends when the thread that starts it ends, which is that of the scenario.
fn bound() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command
}

/// What was found out about this machine.
#[derive(Clone, Copy)]
enum Host {
    /// KVM works.
    Virtual,
    /// It does not. How fast the processor counts, in kHz, if that could be told: guests see the counter as it is, and when
    /// the machine is busy some take it for twenty times slower, so that their clocks run away.
    Emulated(Option<u64>),
}

static HOST: OnceLock<Host> = OnceLock::new();

fn is_virtual() -> bool {
    matches!(HOST.get(), Some(Host::Virtual))
}

/// What tells a kernel how fast the counter is.
fn counter() -> String {
    match HOST.get() {
        Some(Host::Emulated(Some(khz))) => format!(" tsc=reliable tsc_early_khz={khz}"),
        // Its own watchdog looks after it.
        _ => String::new(),
    }
}

/// Finds out whether KVM works, by booting: a device file proves nothing, guests may hang.
pub fn probe(kernel: &Path) {
    HOST.get_or_init(|| {
        if Path::new("/dev/kvm").exists() && rootless(kernel, true).contains(NO_ROOT) {
            return Host::Virtual;
        }
        Host::Emulated(counted(&rootless(kernel, false)))
    });
}

/// The last words of a kernel that works.
const NO_ROOT: &str = "Unable to mount root";

/// What a kernel says that finds no root.
fn rootless(kernel: &Path, by_kvm: bool) -> String {
    let mut command = bound();
    command
        .args(accelerated(by_kvm))
        .args(["-m", "256", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return String::new();
    };
    let mut out = child.stdout.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let began = Instant::now();
    let limit = if by_kvm { PROBE_LIMIT } else { PROBE_LIMIT * 8 };
    while began.elapsed() < limit && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    child.wait().unwrap();
    said.join().unwrap()
}

/// The counter's speed as a kernel found it: by a timer that is exact, where that and the coarse one disagree.
fn counted(said: &str) -> Option<u64> {
    if let Some((_, both)) = said.split_once("PIT calibration deviates from PMTIMER: ") {
        return both.lines().next()?.split(' ').nth(1)?.parse().ok();
    }
    let (_, detected) = said.split_once("tsc: Detected ")?;
    let mhz: f64 = detected.split(' ').next()?.parse().ok()?;
    Some((mhz * 1000.0) as u64)
}

/// QEMU makes its monitor's socket after others, by which it may have been found already.
fn connect(monitor: &Path) -> UnixStream {
    let began = Instant::now();
    loop {
        match UnixStream::connect(monitor) {
            Ok(stream) => return stream,
            Err(_) if began.elapsed() < MONITOR_LIMIT => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(error) => panic!("the monitor {}: {error}", monitor.display()),
        }
    }
}

/// One command to a machine's monitor.
pub fn order(monitor: &Path, command: &str, arguments: Value) -> Value {
    let mut stream = connect(monitor);
    stream.set_read_timeout(Some(MONITOR_LIMIT)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for order in [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": command, "arguments": arguments }),
    ] {
        stream.write_all(format!("{order}\n").as_bytes()).unwrap();
        let answer = lines.by_ref().find_map(|line| {
            let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let is_answer = value.get("return").is_some() || value.get("error").is_some();
            is_answer.then_some(value)
        });
        let answer = answer.expect("the monitor answers");
        assert!(answer.get("error").is_none(), "{order}: {answer}");
        if order["execute"] == command {
            return answer["return"].clone();
        }
    }
    unreachable!("the second order is the command")
}
