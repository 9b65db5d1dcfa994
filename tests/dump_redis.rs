//! Redis in points: real servers on a loop btrfs, with writers that never stop, and servers started from what the points hold.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use standin::error::Failure;
use standin::host::command::Surroundings;
use standin::host::dump::{Around, Open, check};
use standin::logic::dump::redis::{Mode, Redis as How};
use standin::logic::dump::{Address, Dump, Found, How as Kind, Load, Policy, Secret, Server};
use standin::logic::name::{DatasetName, NodeName, RoleName};
use support::cluster::btrfs;
use support::fixture::{Loop, ready, run};
use support::servers::programs;
use support::servers::redis::{Client, Redis};

mod support;

const LOGGED: &[&str] = &["--appendonly", "yes", "--save", ""];
const SAVED: &[&str] = &["--appendonly", "no", "--save", ""];
const ACCOUNTS: usize = 8;
const EACH: i64 = 1000;
const WRITERS: usize = 3;

fn here(test: &str) -> bool {
    ready(test)
        && programs(
            test,
            &["redis-server", "redis-check-aof", "redis-check-rdb"],
        )
}

/// A server whose data is a dataset.
struct Stage {
    disk: Loop,
    live: PathBuf,
    server: Option<Redis>,
    dir: tempfile::TempDir,
    points: usize,
}

impl Stage {
    fn new(options: &[&str]) -> Stage {
        Stage::of(1 << 30, options)
    }

    fn of(size: u64, options: &[&str]) -> Stage {
        let disk = Loop::new(size);
        let live = disk.join("cache");
        btrfs(&["subvolume", "create", live.to_str().unwrap()]);
        let server = Some(Redis::start(&live, options));
        let dir = tempfile::tempdir().unwrap();
        Stage {
            disk,
            live,
            server,
            dir,
            points: 0,
        }
    }

    fn server(&self) -> &Redis {
        self.server.as_ref().unwrap()
    }

    fn around(&self) -> Around {
        Around {
            surroundings: Surroundings {
                role: RoleName::parse("web").unwrap(),
                node: NodeName::parse("alder").unwrap(),
                term: Some(1),
                output: self.dir.path().to_owned(),
            },
            datasets: [(DatasetName::parse("cache").unwrap(), self.live.clone())].into(),
            copies: [(DatasetName::parse("cache").unwrap(), self.live.clone())].into(),
        }
    }

    fn dump(&self, mode: Mode) -> Dump {
        Dump {
            name: RoleName::parse("cache").unwrap(),
            policy: Policy::Required,
            timeout: Duration::from_secs(60),
            hold: Duration::from_secs(5),
            load: Load::Empty,
            drill: None,
            how: Kind::Redis(How {
                mode,
                server: Server {
                    address: Address::Socket(self.server().socket.clone()),
                    user: None,
                    password: None,
                },
            }),
        }
    }

    fn snapshot(&mut self) -> PathBuf {
        self.points += 1;
        let point = self.disk.join(&format!("point-{}", self.points));
        let (live, shown) = (self.live.to_str().unwrap(), point.to_str().unwrap());
        btrfs(&["subvolume", "snapshot", "-r", live, shown]);
        point
    }

    fn point(&mut self, dump: &Dump) -> (PathBuf, Found) {
        let mut open = Open::new(dump, &self.around());
        wait_for(open.prepare()).unwrap();
        wait_for(open.hold()).unwrap();
        let point = self.snapshot();
        wait_for(open.release()).unwrap();
        let found = wait_for(open.finish()).unwrap();
        (point, found)
    }

    /// A server on a writable copy of a point.
    fn promoted(&self, point: &std::path::Path, options: &[&str]) -> Redis {
        let copy = point.with_extension("copy");
        btrfs(&[
            "subvolume",
            "snapshot",
            point.to_str().unwrap(),
            copy.to_str().unwrap(),
        ]);
        Redis::start(&copy, options)
    }
}

/// On one runtime: a connection belongs to it.
fn wait_for<T>(step: impl Future<Output = T>) -> T {
    thread_local!(static RUNTIME: tokio::runtime::Runtime = {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    });
    RUNTIME.with(|runtime| runtime.block_on(step))
}

/// Writers that move money about, each counting what it did; and what was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicI64>>,
    /// Longest that a transfer took since somebody looked, in microseconds.
    longest: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    fn start(server: &Redis) -> Writers {
        let mut client = server.client();
        for account in 0..ACCOUNTS {
            client.does(&["SET", &format!("account:{account}"), &EACH.to_string()]);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| 0.into()).collect());
        let longest = Arc::new(AtomicU64::new(0));
        let writer = |writer: usize| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let longest = longest.clone();
            let mut client = server.client();
            std::thread::spawn(move || {
                let mut number = 0_i64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let begun = Instant::now();
                    if transfer(&mut client, writer, number).is_err() {
                        return;
                    }
                    acknowledged[writer].store(number, Ordering::SeqCst);
                    let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
                    longest.fetch_max(took, Ordering::SeqCst);
                }
            })
        };
        let threads = (0..WRITERS).map(writer).collect();
        let load = Writers {
            stop,
            acknowledged,
            longest,
            threads,
        };
        assert!(support::cluster::wait(|| load
            .seen()
            .iter()
            .all(|&number| number > 20)));
        load
    }

    /// How long writers were stalled since the last call.
    fn stalled(&self) -> Duration {
        // Those who were stalled have said so when they have written again.
        let before = self.seen();
        let on = || {
            self.seen()
                .iter()
                .zip(&before)
                .all(|(now, then)| *now > then + 1)
        };
        assert!(support::cluster::wait(on));
        Duration::from_micros(self.longest.swap(0, Ordering::SeqCst))
    }

    fn seen(&self) -> Vec<i64> {
        let load = |number: &AtomicI64| number.load(Ordering::SeqCst);
        self.acknowledged.iter().map(load).collect()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn transfer(client: &mut Client, writer: usize, number: i64) -> std::io::Result<()> {
    let step = usize::try_from(number).unwrap();
    let (from, to) = ((step + writer) % ACCOUNTS, (step * 3 + 1) % ACCOUNTS);
    client.ask(&["MULTI"])?;
    client.ask(&["DECRBY", &format!("account:{from}"), "7"])?;
    client.ask(&["INCRBY", &format!("account:{to}"), "7"])?;
    client.ask(&["SET", &format!("number:{writer}"), &number.to_string()])?;
    let said = client.ask(&["EXEC"])?;
    assert_eq!(said.last().unwrap(), "OK", "{said:?}");
    Ok(())
}

/// The sum is right, and nothing is missing that was acknowledged.
fn audit(server: &Redis, acknowledged: &[i64]) {
    let mut client = server.client();
    let mut get = |key: String| client.does(&["GET", &key])[0].parse::<i64>().unwrap();
    let sum: i64 = (0..ACCOUNTS)
        .map(|account| get(format!("account:{account}")))
        .sum();
    assert_eq!(sum, EACH * i64::try_from(ACCOUNTS).unwrap());
    for (writer, least) in acknowledged.iter().enumerate() {
        let found = get(format!("number:{writer}"));
        assert!(
            found >= *least,
            "{found} of writer {writer}, acknowledged {least}"
        );
    }
}

#[test]
fn freeze_holds_what_was_acknowledged() {
    if !here("freeze_holds_what_was_acknowledged") {
        return;
    }
    let mut stage = Stage::new(&[LOGGED, &["--auto-aof-rewrite-min-size", "64kb"]].concat());
    let dump = stage.dump(Mode::Freeze);
    let load = Writers::start(stage.server());
    let mut longest = Duration::ZERO;
    for number in 1..=20 {
        let acknowledged = load.seen();
        if number % 5 == 0 {
            // A rewrite that is on its way when the point is taken.
            let _ = stage.server().client().ask(&["BGREWRITEAOF"]);
        }
        load.longest.store(0, Ordering::SeqCst);
        let (point, found) = stage.point(&dump);
        let stalled = load.stalled();
        println!(
            "point {number}: writers stalled {:.1} ms, {found:?}",
            stalled.as_secs_f64() * 1e3
        );
        longest = longest.max(stalled);
        assert!(found.server.unwrap().starts_with("Redis ") && found.bytes.unwrap() > 0);
        assert!(found.position.unwrap().contains("append-only file at "));
        let promoted = stage.promoted(&point, LOGGED);
        let manifest = point
            .with_extension("copy")
            .join("appendonlydir/appendonly.aof.manifest");
        run("redis-check-aof", [&manifest]);
        audit(&promoted, &acknowledged);
    }
    println!(
        "FREEZE redis: writers stalled {:.1} ms at most",
        longest.as_secs_f64() * 1e3
    );
    let before = load.seen();
    assert!(support::cluster::wait(|| load
        .seen()
        .iter()
        .zip(&before)
        .all(|(now, then)| now > then)));
}

#[test]
fn save_holds_what_was_acknowledged_before_it() {
    if !here("save_holds_what_was_acknowledged_before_it") {
        return;
    }
    let mut stage = Stage::new(SAVED);
    let dump = stage.dump(Mode::Save);
    let load = Writers::start(stage.server());
    for number in 1..=6 {
        let mut client = stage.server().client();
        if number % 2 == 0 {
            // One that began before what is acknowledged below, and takes half a second.
            client.does(&["CONFIG", "SET", "rdb-key-save-delay", "40000"]);
            client.does(&["BGSAVE"]);
            client.does(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
            let before = load.seen();
            assert!(support::cluster::wait(|| load.seen()[0] > before[0] + 5));
        }
        let acknowledged = load.seen();
        let (point, found) = stage.point(&dump);
        let rdb = point.join("dump.rdb");
        assert_eq!(found.bytes, Some(fs::metadata(&rdb).unwrap().len()));
        assert!(found.position.unwrap().contains(':'));
        run("redis-check-rdb", [&rdb]);
        audit(&stage.promoted(&point, SAVED), &acknowledged);
    }
}

/// The text of an error and its hint.
fn told<T>(error: anyhow::Result<T>) -> String {
    let error = error.err().expect("an error");
    let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
    format!("could not {error:#}; {}", hint.unwrap_or_default())
}

#[track_caller]
fn says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
    assert!(!told.contains("s3cret"), "{told}");
    println!("{told}");
}

/// What `prepare` says; everybody can write after it, whatever it was.
fn refusal(stage: &Stage, dump: &Dump) -> String {
    let mut open = Open::new(dump, &stage.around());
    let told = told(wait_for(open.prepare()));
    wait_for(open.finish()).unwrap();
    told
}

fn with_server(dump: &Dump, change: impl FnOnce(&mut Server)) -> Dump {
    let mut dump = dump.clone();
    if let Kind::Redis(how) = &mut dump.how {
        change(&mut how.server);
    }
    dump
}

#[test]
fn refusals_say_what_to_do() {
    if !here("refusals_say_what_to_do") {
        return;
    }
    let mut stage = Stage::new(&[SAVED, &["--requirepass", "s3cret"]].concat());
    let save = stage.dump(Mode::Save);
    says(&refusal(&stage, &save), &["NOAUTH", "password-file"]);
    let secret = |word: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = stage.dir.path().join(format!("{word}.secret"));
        fs::write(&path, word).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Some(Secret::File(path))
    };
    let wrong = with_server(&save, |server| server.password = secret("s3cret-not"));
    says(
        &refusal(&stage, &wrong),
        &["WRONGPASS", "wrong", "ACL LIST"],
    );
    let right = with_server(&save, |server| server.password = secret("s3cret"));
    let said = wait_for(check(&right, &stage.around())).unwrap();
    assert!(
        said.contains("saves to") && said.contains("dump.rdb"),
        "{said}"
    );
    // A user of its own: first without, then with the rights that the hint names.
    let mut client = stage.server().client();
    client.does(&["AUTH", "s3cret"]);
    client.does(&["ACL", "SETUSER", "standin", "on", ">s3cret2"]);
    let user = with_server(&save, |server| {
        server.user = Some("standin".to_owned());
        server.password = secret("s3cret2");
    });
    let refused = refusal(&stage, &user);
    says(&refused, &["NOPERM", "ACL SETUSER NAME on +info"]);
    let rights = refused
        .split("NAME on ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let mut words = vec!["ACL", "SETUSER", "standin"];
    words.extend(rights.split(' '));
    client.does(&words);
    stage.point(&user);
    let freeze = |mut dump: Dump| {
        if let Kind::Redis(how) = &mut dump.how {
            how.mode = Mode::Freeze;
        }
        dump
    };
    says(
        &refusal(&stage, &freeze(user.clone())),
        &["no append-only file", "appendonly yes"],
    );
    client.does(&["CONFIG", "SET", "appendonly", "yes"]);
    stage.point(&freeze(user));
    // Its directory is in no dataset any more; then on a subvolume of its own below one.
    let mut around = stage.around();
    around.datasets = [(
        DatasetName::parse("cache").unwrap(),
        stage.disk.join("other"),
    )]
    .into();
    btrfs(&[
        "subvolume",
        "create",
        stage.disk.join("other").to_str().unwrap(),
    ]);
    says(
        &told(wait_for(check(&right, &around))),
        &["no dataset of role web", "move it"],
    );
    around.datasets = [(
        DatasetName::parse("cache").unwrap(),
        stage.disk.path().to_owned(),
    )]
    .into();
    says(
        &told(wait_for(check(&right, &around))),
        &["below dataset cache", "of its own"],
    );
    stage.server.as_mut().unwrap().process.kill();
    says(
        &refusal(&stage, &right),
        &["reach redis at", "see that the server runs"],
    );
}

/// Held, and then something goes wrong.
fn held(stage: &Stage, hold: Duration) -> Open {
    let mut dump = stage.dump(Mode::Freeze);
    dump.hold = hold;
    let mut open = Open::new(&dump, &stage.around());
    wait_for(open.prepare()).unwrap();
    wait_for(open.hold()).unwrap();
    open
}

/// How long a write takes now.
fn write(stage: &Stage) -> Duration {
    let mut client = stage.server().client();
    let begun = Instant::now();
    client.does(&["INCR", "probe"]);
    begun.elapsed()
}

#[test]
fn writers_are_let_go_whatever_happens() {
    if !here("writers_are_let_go_whatever_happens") {
        return;
    }
    let mut stage = Stage::new(LOGGED);
    let (short, long) = (Duration::from_millis(600), Duration::from_secs(30));
    // Readers go on.
    let mut open = held(&stage, long);
    stage.server().client().does(&["GET", "probe"]);
    wait_for(open.release()).unwrap();
    assert!(write(&stage) < long / 2);

    // The process that holds is gone: the server's own limit.
    let open = held(&stage, short);
    std::mem::forget(open);
    assert!(write(&stage) > Duration::from_millis(100));

    // The limit was over before the snapshots were made.
    let mut open = held(&stage, Duration::from_millis(100));
    write(&stage);
    says(
        &told(wait_for(open.release())),
        &["the limit of the hold was over"],
    );

    // Somebody else ends the pause.
    let mut open = held(&stage, long);
    stage.server().client().does(&["CLIENT", "UNPAUSE"]);
    write(&stage);
    says(&told(wait_for(open.release())), &["CLIENT UNPAUSE"]);

    // The connection dies.
    let mut open = held(&stage, long);
    let mut client = stage.server().client();
    client.does(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    says(
        &told(wait_for(open.release())),
        &["keep writers of redis held", "the connection"],
    );
    assert!(write(&stage) < long / 2);

    // A step that is dropped in the middle: the server does not answer.
    let mut dump = stage.dump(Mode::Freeze);
    dump.hold = long;
    let mut open = Open::new(&dump, &stage.around());
    wait_for(open.prepare()).unwrap();
    stage.server().process.signal("STOP");
    let cut =
        wait_for(async { tokio::time::timeout(Duration::from_millis(200), open.hold()).await });
    assert!(cut.is_err());
    stage.server().process.signal("CONT");
    wait_for(open.release()).unwrap();
    wait_for(open.finish()).unwrap();
    assert!(write(&stage) < long / 2);

    // The server is killed while it holds.
    let mut open = held(&stage, long);
    stage.server.as_mut().unwrap().process.kill();
    says(&told(wait_for(open.release())), &["reach redis at"]);
    wait_for(open.finish()).unwrap();
}

#[test]
fn a_full_disk_is_told() {
    if !here("a_full_disk_is_told") {
        return;
    }
    let stage = Stage::of(256 << 20, SAVED);
    let mut client = stage.server().client();
    // Random, so that it does not become small in the file.
    for number in 0..64_u64 {
        let noise: String = support::cluster::noise(number, 1 << 18)
            .iter()
            .map(|byte| char::from(b' ' + byte % 90))
            .collect();
        client.does(&["SET", &format!("noise:{number}"), &noise]);
    }
    let filler = stage.disk.join("filler");
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "oflag=sync"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    assert!(!full.status.success());
    let save = stage.dump(Mode::Save);
    says(&refusal(&stage, &save), &["BGSAVE failed", "full"]);
    fs::remove_file(filler).unwrap();
    let mut open = Open::new(&save, &stage.around());
    wait_for(open.prepare()).unwrap();
}
