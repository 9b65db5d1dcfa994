//! Who has the live data open for writing, on a real btrfs with real holders.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use standin::host::writers::{Hold, Writer, writers};

use crate::support::cluster::btrfs;
use crate::support::fixture::{self, Loop};
use crate::{skipped, wait};

/// A child that ends with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that says a line on its standard output once it holds what it is to hold.
fn hold(program: &str, arguments: &[&str]) -> Holder {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "held\n");
    Holder(child)
}

fn python(script: &str, path: &Path) -> Holder {
    hold(
        "python3",
        &[
            "-c",
            &format!(
                "import os,sys,mmap,time\np=sys.argv[1]\n{script}\nprint('held',flush=True)\ntime.sleep(1000)"
            ),
            path.to_str().unwrap(),
        ],
    )
}

struct Disk {
    disk: Loop,
}

impl Disk {
    fn new() -> Disk {
        let disk = Loop::new(256 << 20);
        for name in ["live", "other"] {
            btrfs(&[
                "subvolume",
                "create",
                disk.path().join(name).to_str().unwrap(),
            ]);
        }
        Disk { disk }
    }

    fn live(&self) -> std::path::PathBuf {
        self.disk.path().join("live")
    }

    fn writers(&self) -> Vec<Writer> {
        writers(&self.live()).unwrap()
    }

    /// Who holds what, without pids.
    fn found(&self) -> Vec<(Hold, String)> {
        let name = |path: &Path| {
            path.strip_prefix(self.live())
                .unwrap_or(path)
                .display()
                .to_string()
        };
        let mut found: Vec<_> = self
            .writers()
            .iter()
            .map(|w| (w.hold, name(&w.path)))
            .collect();
        found.sort();
        found
    }
}

#[test]
fn holders_of_files() {
    if !fixture::ready("holders_of_files") {
        return;
    }
    let disk = Disk::new();
    let check = |script: &str, expected: &[(Hold, &str)]| {
        let file = disk.live().join("f");
        fs::write(&file, vec![0; 8192]).unwrap();
        fs::write(disk.disk.path().join("other/g"), vec![0; 8192]).unwrap();
        assert_eq!(disk.found(), [], "before {script}");
        let holder = python(script, &file);
        let expected: Vec<_> = expected
            .iter()
            .map(|(hold, path)| (*hold, (*path).to_owned()))
            .collect();
        assert_eq!(disk.found(), expected, "{script}");
        if let Some(writer) = disk.writers().first() {
            assert_eq!(writer.pid, Some(holder.0.id()));
            assert_eq!(
                (writer.user.as_str(), &writer.command[..6]),
                ("root", "python")
            );
            let path = writer.path.display();
            let verb = if writer.hold == Hold::Open {
                "open"
            } else {
                "mapped"
            };
            assert_eq!(
                writer.to_string(),
                format!(
                    "{} (pid {}, user root) has {path} {verb} for writing",
                    writer.command,
                    holder.0.id()
                )
            );
        }
    };
    check("f=open(p,'r+')", &[(Hold::Open, "f")]);
    check("f=open(p,'a')", &[(Hold::Open, "f")]);
    check("f=open(p,'r')", &[]);
    check("f=os.open(os.path.dirname(p),os.O_PATH)", &[]);
    check("f=open(p.replace('/live/f','/other/g'),'r+')", &[]);
    check(
        "f=open(p,'r+'); os.unlink(p)",
        &[(Hold::Open, "f (deleted)")],
    );
    check(
        "f=open(p,'r+'); m=mmap.mmap(f.fileno(),4096); f.close()",
        &[(Hold::Open, "f"), (Hold::Mapped, "f")],
    );
    // Python's mmap keeps a descriptor; this one does not.
    let closed = "f=os.open(p,os.O_RDWR)\nimport ctypes\nc=ctypes.CDLL(None,use_errno=True)\nc.mmap.restype=ctypes.c_void_p\nc.mmap.argtypes=[ctypes.c_void_p,ctypes.c_size_t,ctypes.c_int,ctypes.c_int,ctypes.c_int,ctypes.c_long]\nassert c.mmap(None,4096,PROT,FLAGS,f,0) not in (None,2**64-1)\nos.close(f)";
    let mapped = |prot: &str, flags: &str| closed.replace("PROT", prot).replace("FLAGS", flags);
    check(&mapped("3", "1"), &[(Hold::Mapped, "f")]);
    // Shared and read-only at the moment: one mprotect(2) away from writing.
    check(&mapped("1", "1"), &[(Hold::Mapped, "f")]);
    // A private mapping never writes back.
    check(&mapped("3", "2"), &[]);
    check(&mapped("1", "1").replace("O_RDWR", "O_RDONLY"), &[]);
}

#[test]
fn holders_that_hide() {
    if !fixture::ready("holders_that_hide") {
        return;
    }
    let disk = Disk::new();
    let file = disk.live().join("f");
    fs::write(&file, "x").unwrap();
    // In a mount namespace of its own, where the data are mounted elsewhere, and gone from where they were.
    let elsewhere = tempfile::tempdir().unwrap();
    let script = format!(
        "mount --bind {0} {1} && umount -l {2} && exec 3>>{1}/f && echo held && exec sleep 1000",
        disk.live().display(),
        elsewhere.path().display(),
        disk.disk.path().display(),
    );
    let holder = hold("unshare", &["--mount", "sh", "-c", &script]);
    let found = disk.writers();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].pid, Some(holder.0.id()));
    drop(holder);
    // A descriptor from before the data were moved away and others put in their place.
    let holder = python("f=open(p,'a')", &file);
    let moved = disk.disk.path().join("moved");
    fs::rename(disk.live(), &moved).unwrap();
    btrfs(&["subvolume", "create", disk.live().to_str().unwrap()]);
    assert_eq!(disk.found(), []);
    assert_eq!(writers(&moved).unwrap().len(), 1);
    drop(holder);
    // A process whose main thread has ended while another holds the file.
    let script = "import threading,ctypes\nf=open(p,'a')\nt=threading.Thread(target=lambda: (print('held',flush=True), time.sleep(1000)))\nt.start()\nctypes.CDLL(None).pthread_exit(None)";
    let path = moved.join("f");
    let holder = python(script, &path);
    let stat = format!("/proc/{}/stat", holder.0.id());
    wait("the main thread has ended", || {
        fs::read_to_string(&stat)
            .unwrap()
            .contains(") Z ")
            .then_some(())
    });
    assert_eq!(writers(&moved).unwrap().len(), 1);
    // Another user's.
    drop(holder);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let _holder = hold(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            &format!("exec 3>>{}; echo held; exec sleep 1000", path.display()),
        ],
    );
    let found = writers(&moved).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].user, "nobody");
}

#[test]
fn loop_devices_and_nothing_at_all() {
    if !fixture::ready("loop_devices_and_nothing_at_all") {
        return;
    }
    let disk = Disk::new();
    assert_eq!(writers(Path::new("/no/such/place")).unwrap(), []);
    let image = disk.live().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    for (read_only, count) in [(true, 0), (false, 1)] {
        let mut arguments = vec!["--find", "--show"];
        arguments.extend(read_only.then_some("--read-only"));
        arguments.push(image.to_str().unwrap());
        let device = String::from_utf8(fixture::run("losetup", arguments)).unwrap();
        let found = disk.found();
        fixture::run("losetup", ["--detach", device.trim()]);
        assert_eq!(found.len(), count, "{found:?}");
        assert!(
            found
                .iter()
                .all(|(hold, path)| (*hold, path.as_str()) == (Hold::Loop, "image"))
        );
    }
    wait("the device let go", || {
        disk.found().is_empty().then_some(())
    });
}

#[test]
fn ten_thousand_descriptors_are_looked_through_quickly() {
    let test = "ten_thousand_descriptors_are_looked_through_quickly";
    if !fixture::ready(test) {
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < 11_000) {
        return skipped(test, "too few descriptors are allowed");
    }
    let disk = Disk::new();
    let file = disk.disk.path().join("other/g");
    fs::write(&file, "x").unwrap();
    let script = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE,(11000,resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\nf=[open(p,'a') for i in range(10000)]";
    let _holder = python(script, &file);
    let best = (0..5)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(disk.found(), []);
            began.elapsed()
        })
        .min()
        .unwrap();
    println!("10,000 descriptors and all other processes: {best:?}");
    assert!(best.as_millis() < 400, "{best:?}");
}
