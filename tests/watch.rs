//! `standin status --watch` as a person meets it: the built program on a terminal, keys, and a daemon that comes and goes.
//!
//! What is proved here: what is on the screen, that the terminal is given back on every way out, and how many bytes a slow
//! line has to carry. The terminal is real (a pty with a small emulator behind it); the daemon is a script, but where bytes
//! are counted.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

use support::cluster::{MANUAL, MIB, Pair, fill, wait};
use support::fixture;
use support::screen::Screen;

/// The program on a terminal of its own.
struct Watched {
    master: OwnedFd,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    screen: Arc<Mutex<Screen>>,
    cut: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Watched {
    fn start(socket: &Path, size: (u16, u16), env: &[(&str, &str)]) -> Watched {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        resize(&master, size);
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        // The terminal becomes its controlling one: it hears of sizes and of the end of the line as in real life.
        let mut command = Command::new("setsid");
        command
            .args([
                "--ctty",
                env!("CARGO_BIN_EXE_standin"),
                "status",
                "--watch",
                "--socket",
            ])
            .arg(socket)
            .env("TZ", "UTC")
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .env_remove("STANDIN_CONFIG")
            .envs(env.iter().copied());
        let child = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(Screen::new(size)));
        let terminal = File::from(master.try_clone().unwrap());
        let cut = Arc::new(AtomicBool::new(false));
        let (shown, until) = (screen.clone(), cut.clone());
        let reader = std::thread::spawn(move || show(terminal, &shown, &until));
        Watched {
            master,
            slave,
            before,
            child,
            screen,
            cut,
            reader,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        let there = wait(|| self.text().contains(words));
        assert!(there, "no {words:?} on\n{}", self.text());
    }

    fn press(&self, keys: &str) {
        let mut keyboard = File::from(self.master.try_clone().unwrap());
        keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    fn resize(&self, size: (u16, u16)) {
        self.screen.lock().unwrap().resize(size);
        resize(&self.master, size);
    }

    /// The line to the terminal is cut: what is written from now on arrives nowhere.
    #[track_caller]
    fn cut(self) {
        let Watched {
            master,
            mut child,
            cut,
            reader,
            ..
        } = self;
        cut.store(true, Ordering::SeqCst);
        reader.join().unwrap();
        drop(master);
        assert_eq!(ended(&mut child), Some(0));
    }

    /// It ends, well, and the terminal is as it was found.
    #[track_caller]
    fn ends(mut self) {
        assert_eq!(ended(&mut self.child), Some(0), "{}", self.text());
        let given_back = wait(|| {
            let screen = self.screen.lock().unwrap();
            !screen.other && screen.cursor
        });
        assert!(given_back, "{}", self.text());
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
    }
}

/// Its exit code, once it ended; it is killed where it does not.
fn ended(child: &mut Child) -> Option<i32> {
    let ends = wait(|| child.try_wait().unwrap().is_some());
    if !ends {
        child.kill().unwrap();
    }
    child.wait().unwrap().code().filter(|_| ends)
}

/// Brings onto the screen what comes, until the line is cut.
fn show(mut terminal: File, screen: &Mutex<Screen>, cut: &AtomicBool) {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !cut.load(Ordering::SeqCst) {
        let ready = {
            let mut polled = [PollFd::new(&terminal, PollFlags::IN)];
            poll(&mut polled, Some(&patience)).unwrap() > 0
        };
        let mut bytes = [0; 4096];
        if ready {
            match terminal.read(&mut bytes) {
                Ok(count @ 1..) => screen.lock().unwrap().feed(&bytes[..count]),
                _ => return,
            }
        }
    }
}

fn resize(terminal: impl AsFd, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

fn status(second: u32) -> Value {
    let role = |name: &str| {
        json!({ "name": name, "id": null, "state": "active", "term": null, "active": "alder",
            "every": "5m", "next_run": null, "last_good": null, "last_error": null, "phase": null,
            "points": 0, "newest": null, "replicas": [], "datasets": [] })
    };
    json!({ "node": "alder", "version": "0.1.0", "now": format!("2026-11-20T12:00:{:02}Z", second % 60),
        "started": "2026-11-20T11:59:00Z", "peers": [], "roles": [role("web"), role("mail")],
        "transfers": [], "warnings": ["web: files holds a swap file"] })
}

fn done(value: &Value) -> Value {
    json!({ "reply": "done", "value": value })
}

/// A daemon that answers from a script for as long as it lives.
struct Daemon {
    listener: UnixListener,
    socket: PathBuf,
    clients: Arc<Mutex<Vec<UnixStream>>>,
    ended: Arc<Mutex<bool>>,
}

impl Daemon {
    fn start(dir: &Path) -> Daemon {
        let socket = dir.join("control.sock");
        let _ = std::fs::remove_file(&socket);
        let daemon = Daemon {
            listener: UnixListener::bind(&socket).unwrap(),
            socket,
            clients: Arc::default(),
            ended: Arc::default(),
        };
        let listener = daemon.listener.try_clone().unwrap();
        let (clients, ended) = (daemon.clients.clone(), daemon.ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if *ended.lock().unwrap() {
                    return;
                }
                clients.lock().unwrap().push(stream.try_clone().unwrap());
                std::thread::spawn(move || answer(stream));
            }
        });
        daemon
    }

    /// As after a kill: nobody gets another word.
    fn stop(self) {
        *self.ended.lock().unwrap() = true;
        std::fs::remove_file(&self.socket).unwrap();
        for client in self.clients.lock().unwrap().iter() {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn answer(mut stream: UnixStream) {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let request: Value = serde_json::from_str(&line).unwrap();
    let reply = match request["verb"].as_str().unwrap() {
        "status" => done(&status(0)),
        "points" => done(&json!({ "roles": [{ "role": request["role"], "points": [] }] })),
        "events" => done(
            &json!({ "events": [{ "at": "2026-11-20T11:59:30Z", "role": "web",
            "warning": false, "text": "took point 1.1" }] }),
        ),
        "watch" => return watch(&mut stream),
        verb => panic!("nobody asked for {verb}"),
    };
    let _ = writeln!(stream, "{reply}");
}

fn watch(stream: &mut UnixStream) {
    for second in 1.. {
        let event = json!({ "event": "status", "status": status(second) });
        if writeln!(stream, "{}", json!({ "reply": "event", "event": event })).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn keys_lead_through_the_pages() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let watched = Watched::start(&daemon.socket, (100, 30), &[]);
    watched.wait_for("took point 1.1");
    watched.wait_for(">! web");
    watched.press("j");
    watched.wait_for(">  mail");
    watched.press("\x1b[A");
    watched.wait_for(">! web");
    watched.press("\r");
    watched.wait_for("role web");
    watched.wait_for("no points yet");
    watched.press("?");
    watched.wait_for("draw everything anew");
    watched.press("\x1b");
    watched.wait_for("role web");
    watched.press("h");
    watched.wait_for("choose");
    watched.press("q");
    watched.ends();
}

#[test]
fn every_way_out_gives_the_terminal_back() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let check = |leave: &dyn Fn(&Watched)| {
        let watched = Watched::start(&daemon.socket, (80, 24), &[]);
        watched.wait_for("ROLE");
        assert!(watched.screen.lock().unwrap().other);
        leave(&watched);
        watched.ends();
    };
    check(&|watched| watched.press("q"));
    check(&|watched| watched.press("\x03"));
    check(&|watched| watched.signal("-TERM"));
    check(&|watched| watched.signal("-INT"));
    check(&|watched| watched.signal("-HUP"));
}

#[test]
fn a_line_that_is_cut_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let watched = Watched::start(&daemon.socket, (80, 24), &[]);
    watched.wait_for("ROLE");
    watched.cut();
}

#[test]
fn a_daemon_that_stops_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let watched = Watched::start(&daemon.socket, (80, 24), &[]);
    watched.wait_for("took point 1.1");
    daemon.stop();
    watched.wait_for("OLD");
    watched.wait_for("Waiting for the daemon");
    watched.wait_for(">! web");
    let _again = Daemon::start(dir.path());
    let back = wait(|| !watched.text().contains("OLD"));
    assert!(back, "{}", watched.text());
    watched.wait_for(">! web");
    watched.press("q");
    watched.ends();
}

#[test]
fn a_terminal_may_change_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let watched = Watched::start(&daemon.socket, (100, 30), &[]);
    watched.wait_for("took point 1.1");
    for size in [(60, 15), (20, 3), (200, 50), (100, 30)] {
        watched.resize(size);
        // The line of keys is the last one.
        let there = wait(|| {
            let text = watched.text();
            text.lines().count() == usize::from(size.1) && text.ends_with(&last_line(size.0))
        });
        assert!(there, "{size:?}\n{}", watched.text());
    }
    watched.wait_for("took point 1.1");
    watched.press("q");
    watched.ends();
}

fn last_line(columns: u16) -> String {
    let keys = "up/down  choose   enter  details   ?  help   q  quit";
    match keys.len() <= usize::from(columns) {
        true => keys.to_owned(),
        false => format!("{}...", &keys[..usize::from(columns) - 3]),
    }
}

#[test]
fn no_colour_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let check = |env: &[(&str, &str)], coloured: bool| {
        let watched = Watched::start(&daemon.socket, (100, 30), env);
        watched.wait_for("took point 1.1");
        // A warning is yellow where colours are wanted.
        watched.wait_for("! web: files holds a swap file");
        assert_eq!(watched.screen.lock().unwrap().coloured, coloured);
        watched.press("q");
        watched.ends();
    };
    check(&[("NO_COLOR", "1")], false);
    check(&[], true);
}

/// Bytes in a second that a terminal of 100 x 30 is sent, over so many seconds of the picture.
fn bytes_per_s(watched: &Watched, seconds: u32) -> f64 {
    let bytes = || watched.screen.lock().unwrap().bytes;
    let (from, begun) = (bytes(), Instant::now());
    let clocks = || watched.screen.lock().unwrap().clocks();
    let first = clocks();
    let passed = wait(|| clocks() >= first + seconds as usize);
    assert!(passed, "{}", watched.text());
    (bytes() - from) as f64 / begun.elapsed().as_secs_f64()
}

#[test]
fn a_slow_line_carries_it() {
    if !fixture::ready("a_slow_line_carries_it") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    let socket = pair.alder.dir.join("run/control.sock");
    let check = |what: &str, most: f64| {
        let watched = Watched::start(&socket, (100, 30), &[]);
        watched.wait_for("links\n");
        let rate = bytes_per_s(&watched, 20);
        println!("{what}: {rate:.0} bytes a second\n{}", watched.text());
        assert!(rate < most, "{what}: {rate:.0} bytes a second");
        watched.press("q");
        watched.ends();
    };
    pair.alder.run(&["run"]).ok();
    check("idle", 400.0);
    pair.alder
        .edit("[peer.birch]\n", "[peer.birch]\nbandwidth = \"512KiB/s\"\n");
    pair.alder.run(&["reload"]).ok();
    fill(&pair.alder.live("files"), 40, MIB as usize, 9);
    let mut asked = pair.alder.command(&["run", "web"]).spawn().unwrap();
    let moves = || {
        pair.alder
            .transfer()
            .is_some_and(|t| t["done_bytes"].as_u64() > Some(0))
    };
    assert!(wait(moves), "nothing moves: {}", pair.alder.log());
    check("during a transfer", 800.0);
    assert!(
        pair.alder.transfer().is_some(),
        "it was over before it was measured"
    );
    pair.alder.run(&["cancel", "web"]).ok();
    asked.wait().unwrap();
}
