//! The three days on which somebody needs a backup, played with nothing but the program: a file deleted last week, last night's
//! database, a whole lost server. Each in fewer than five commands.
//!
//! `scripts/transcripts` plays them and writes what was typed and shown into docs/restore.md.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::Path;

use support::clock::{self, Clock};
use support::cluster::{MANUAL, MIB, Pair, TestNode, fill};
use support::fixture::Loop;
use support::same::assert_same;
use support::servers::postgres::{self, Postgres, create};

/// A person may type so many commands.
const COMMANDS_MAX: usize = 4;

const DAY: i64 = 24 * 3600;

/// What a person types and sees.
struct Transcript {
    case: &'static str,
    text: String,
    typed: usize,
    /// Paths of the test, and what stands for them.
    names: Vec<(String, &'static str)>,
}

impl Transcript {
    fn new(case: &'static str, names: &[(&Path, &'static str)]) -> Transcript {
        let names = names.iter();
        Transcript {
            case,
            text: String::new(),
            typed: 0,
            names: names
                .map(|(path, name)| (path.display().to_string(), *name))
                .collect(),
        }
    }

    /// A command that succeeds, as it is typed.
    fn types(&mut self, node: &TestNode, args: &[&str]) -> String {
        let said = node.run(args).ok().out;
        self.typed += 1;
        let words: Vec<String> = args.iter().map(|word| quoted(word)).collect();
        self.text += &format!("    {}# standin {}\n", node.name, words.join(" "));
        for line in said.lines() {
            self.text += &format!("    {line}\n");
        }
        self.text += "\n";
        said
    }

    /// What is typed and is not ours, or was done otherwise here.
    fn also(&mut self, node: &TestNode, line: &str) {
        self.typed += 1;
        self.text += &format!("    {}# {line}\n\n", node.name);
    }

    fn end(mut self) {
        assert!(self.typed <= COMMANDS_MAX, "{} commands", self.typed);
        for (path, name) in &self.names {
            self.text = self.text.replace(path, name);
        }
        println!("{}", self.text);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_none() {
            return;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/restore.md");
        let page = fs::read_to_string(&path).unwrap();
        let (begin, end) = (
            format!("<!-- {} -->\n", self.case),
            format!("<!-- end of {} -->", self.case),
        );
        let (before, rest) = page
            .split_once(&begin)
            .expect("the case's mark in docs/restore.md");
        let (_, after) = rest.split_once(&end).expect("the end of the case");
        let trimmed: Vec<&str> = self.text.trim_end().lines().map(str::trim_end).collect();
        fs::write(
            path,
            format!("{before}{begin}\n{}\n\n{end}{after}", trimmed.join("\n")),
        )
        .unwrap();
    }
}

fn quoted(word: &str) -> String {
    match word.contains([' ', '*']) {
        true => format!("'{word}'"),
        false => word.to_owned(),
    }
}

/// Two nodes, alder's daemon with a clock of its own, which is `days` behind.
fn ago(days: i64, datasets: &[&str]) -> (Pair, Clock) {
    let mut pair = Pair::new(datasets, "", MANUAL);
    pair.alder.stop();
    let clock = Clock::new(&pair.alder.dir, "UTC0");
    clock.shift(-days * DAY);
    pair.alder.start_with(&clock.env());
    pair.wait_linked();
    (pair, clock)
}

fn take(pair: &Pair) {
    pair.alder.run(&["run"]).ok();
    let newest = pair.alder.points().pop().unwrap();
    pair.wait_stored(&newest);
}

#[test]
fn a_file_deleted_last_week() {
    if !clock::ready("a_file_deleted_last_week") {
        return;
    }
    let (pair, clock) = ago(9, &["files"]);
    let node = &pair.alder;
    let live = node.live("files");
    fs::create_dir(live.join("office")).unwrap();
    let contract = live.join("office/contract.txt");
    fs::write(&contract, "first draft\n").unwrap();
    take(&pair);
    clock.shift(-8 * DAY);
    fs::write(&contract, "as it was signed\n").unwrap();
    take(&pair);
    clock.shift(-6 * DAY);
    fs::remove_dir_all(live.join("office")).unwrap();
    take(&pair);
    clock.shift(0);
    fs::write(live.join("other"), "today\n").unwrap();
    take(&pair);

    let mut case = Transcript::new("a file deleted last week", &[(&live, "/srv/web")]);
    let path = contract.to_str().unwrap();
    let shown = case.types(node, &["find", path]);
    assert!(shown.contains("removed"), "{shown}");
    case.types(node, &["restore", path, "--yes"]);
    case.end();
    assert_eq!(fs::read_to_string(&contract).unwrap(), "as it was signed\n");
}

#[test]
fn last_nights_database() {
    if !clock::ready("last_nights_database") || !postgres::ready("last_nights_database") {
        return;
    }
    let (pair, clock) = ago(1, &["dumps"]);
    let node = &pair.alder;
    // The server's own data are in no dataset: only their dump is.
    let data = node.disk.path().join("data");
    create(&data);
    let server = Postgres::start(&data);
    server.sql("CREATE DATABASE shop");
    server.sql_in("shop", "CREATE TABLE orders AS SELECT g AS number, 'paid' AS state FROM generate_series(1, 1000) g");
    let dump = format!(
        "[[role.web.dump]]\nname = \"shop\"\nkind = \"postgres\"\nmode = \"dump\"\nsocket = \"{}\"\nto = \"{}\"\n",
        server.dir().display(),
        node.live("dumps").join("shop").display()
    );
    let text = fs::read_to_string(node.config_path()).unwrap() + &dump;
    fs::write(node.config_path(), text).unwrap();
    node.run(&["reload"]).ok();
    take(&pair);
    clock.shift(0);
    server.sql_in("shop", "UPDATE orders SET state = 'lost'");
    take(&pair);

    let live = node.live("dumps");
    let mut case = Transcript::new("last night's database", &[(&live, "/srv/dumps")]);
    case.types(
        node,
        &[
            "restore",
            "web",
            "--dataset",
            "dumps",
            "--before",
            "12 hours ago",
            "--yes",
        ],
    );
    case.types(node, &["load", "web", "shop", "--replace"]);
    case.end();
    let paid = server.sql_in("shop", "SELECT count(*) FROM orders WHERE state = 'paid'");
    assert_eq!(paid.trim(), "1000");
}

#[test]
fn a_whole_lost_server() {
    if !support::fixture::ready("a_whole_lost_server") {
        return;
    }
    let Pair {
        mut alder, birch, ..
    } = Pair::new(&["files"], "", MANUAL);
    for point in 1..=3 {
        fill(&alder.live("files"), 10, 20_000, point);
        alder.run(&["run"]).ok();
        birch.wait_for("the point is stored", || {
            birch.points().len() == point as usize
        });
    }
    let lost = alder.live("files");
    alder.kill();
    birch.wait_for("alder is seen to be gone", || {
        birch.status()["peers"][0]["linked"] == false
    });
    let mut new = TestNode::on("alder", Loop::new(2048 * MIB));
    let text = format!(
        "[node]\nname = \"alder\"\nlisten = \"{}\"\nstate-dir = \"{}\"\ncontrol = \"{}\"\nreserve = \"32MiB\"\n",
        new.address,
        new.dir.join("state").display(),
        new.dir.join("run/control.sock").display(),
    );
    fs::write(new.config_path(), text).unwrap();
    fs::create_dir_all(new.disk.path().join("srv")).unwrap();
    new.make_key();
    new.start();

    let live = new.live("files");
    let names = [
        (live.as_path(), "/srv/web"),
        (lost.as_path(), "/srv/web"),
        (&new.config_path(), "/etc/standin/standin.toml"),
        (new.dir.as_path(), "/var/lib"),
        (birch.disk.path(), "/srv/birch"),
    ];
    let mut case = Transcript::new("a whole lost server", &names);
    let said = case.types(&birch, &["pair", "invite", "--replace", "alder"]);
    let line = said.lines().find_map(|line| {
        let word = line
            .split_whitespace()
            .find(|word| word.starts_with("standin-pair:"))?;
        Some(word.to_owned())
    });
    let line = line.expect("an invitation");
    case.also(&new, "standin init && systemctl enable --now standin");
    let place = format!("web/files={}", live.display());
    case.types(
        &new,
        &[
            "rebuild", "--from", "birch", "--invite", &line, "--path", &place, "--yes",
        ],
    );
    case.types(&new, &["promote", "web"]);
    case.text = case.text.replace(&line, "standin-pair:...");
    case.end();
    new.wait_for("it plays the role", || new.role()["state"] == "active");
    assert_same(&live, &birch.snapshot("1.3", "files"), "what came back");
}
