//! The program as a person meets it: the built binary against a control server that answers from a script.
//!
//! What is proved here: words on stdout and stderr, exit codes, what is asked of the daemon. What the daemon does is not
//! in here; the socket, the lines and the process are real.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// A control server that answers each request with the lines `script` returns for it.
struct Stage {
    dir: tempfile::TempDir,
    requests: mpsc::Receiver<Value>,
}

impl Stage {
    fn new(script: fn(&Value) -> Vec<Value>) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let (heard, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let request: Value = serde_json::from_str(&line).unwrap();
                for reply in script(&request) {
                    // A client that left in the middle is part of some plays.
                    let _ = writeln!(stream, "{reply}");
                }
                if heard.send(request).is_err() {
                    return;
                }
            }
        });
        Stage { dir, requests }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = standin(words);
        command.arg("--socket").arg(self.socket());
        command
    }

    /// What was asked so far.
    fn asked(&self) -> Vec<Value> {
        self.requests.try_iter().collect()
    }
}

fn standin(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
    command
        .args(words.split_whitespace())
        .env("TZ", "UTC")
        .env_remove("STANDIN_CONFIG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn check(output: &Output, code: i32, expected: Expect) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    expected.assert_eq(&text);
    assert_eq!(output.status.code(), Some(code));
}

fn done(value: Value) -> Vec<Value> {
    vec![json!({ "reply": "done", "value": value })]
}

fn status() -> Value {
    let role = |name: &str| {
        json!({ "name": name, "id": null, "state": "active", "term": null, "active": "alder",
            "every": "5m", "next_run": null, "last_good": null, "last_error": null, "phase": null,
            "points": 0, "newest": null, "replicas": [], "datasets": [] })
    };
    json!({ "node": "alder", "version": "0.1.0", "now": "2026-11-20T12:00:00Z",
        "started": "2026-11-20T11:59:00Z", "peers": [], "roles": [role("web"), role("mail")],
        "transfers": [], "warnings": [] })
}

fn preview(dry_run: bool) -> Value {
    let point = |n: u32| {
        json!({ "name": format!("20261120T123005Z.1.{n}"), "short": format!("1.{n}"),
            "taken": "2026-11-20T12:30:05Z" })
    };
    let ok = if dry_run { Value::Null } else { json!(true) };
    json!({ "dry_run": dry_run, "role": "web", "point": point(42),
        "kept": if dry_run { Value::Null } else { point(44) },
        "steps": [{ "what": "exchange", "text": "put files of 1.42 in place of /srv/web", "ok": ok, "error": null }] })
}

fn ordinary(request: &Value) -> Vec<Value> {
    match request["verb"].as_str().unwrap() {
        "status" => done(status()),
        "restore" => done(preview(request["dry_run"] == true)),
        "points" if request["role"] == "wbe" => {
            vec![json!({ "reply": "failed", "code": "not-found",
            "what": "find role wbe", "hint": "roles of this node: web, mail" })]
        }
        "points" => done(json!({ "roles": [{ "role": "web", "points": [] }] })),
        "run" => {
            let mut replies = vec![
                json!({ "reply": "event", "event": { "event": "note", "at": "2026-11-20T12:00:00Z",
                    "role": "web", "text": "web: took point 1.1" } }),
                json!({ "reply": "event", "event": { "event": "from-the-future" } }),
            ];
            replies.extend(done(
                json!({ "dry_run": false, "roles": [{ "role": "web", "steps": [],
                "code": "unreachable", "seconds": 2.0 }] }),
            ));
            replies
        }
        "pair-accept" => done(json!({ "peer": "birch", "key": "SHA256:x",
            "text": format!("got {}", request["line"]) })),
        "prune" => vec![json!({ "reply": "failed", "code": "locked",
            "what": "prune web: a cycle of it is running", "hint": "standin status shows it" })],
        "cancel" if request["role"] == "web" => done(json!({ "cancelled": 1 })),
        "cancel" if request["role"] == "mail" => done(json!({ "cancelled": 0 })),
        "cancel" | "reload" => done(Value::Null),
        "watch" => {
            let mut replies = vec![
                json!({ "reply": "event", "event": { "event": "status", "status": status() } }),
            ];
            replies.extend(done(Value::Null));
            replies
        }
        // Ends the conversation without an answer.
        _ => vec![],
    }
}

#[test]
fn no_daemon_and_no_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let output = standin("status --socket nowhere.sock --config nothing.toml")
        .current_dir(dir.path())
        .output()
        .unwrap();
    check(
        &output,
        14,
        expect![[r#"
            standin: could not reach the daemon: no such socket: nowhere.sock
            hint: start it: systemctl start standin, or: standin serve; or leave --socket out
        "#]],
    );
}

#[test]
fn no_daemon_in_json() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("standin.toml"), "[node]\n").unwrap();
    let output = standin("points --json --socket nowhere.sock --config standin.toml")
        .current_dir(dir.path())
        .output()
        .unwrap();
    check(
        &output,
        14,
        expect![[r#"
            {"error":{"code":"no-daemon","exit":14,"hint":"start it: systemctl start standin, or: standin serve; or leave --socket out","what":"reach the daemon: no such socket: nowhere.sock"}}
            standin: could not reach the daemon: no such socket: nowhere.sock
            hint: start it: systemctl start standin, or: standin serve; or leave --socket out
        "#]],
    );
}

#[test]
fn a_role_that_does_not_exist() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("points wbe"),
        17,
        expect![[r#"
            standin: could not find role wbe
            hint: roles of this node: web, mail
        "#]],
    );
}

#[test]
fn a_word_that_is_no_role_name() {
    check(
        &standin("points ../etc").output().unwrap(),
        2,
        expect![[r#"
        error: invalid value '../etc' for '[ROLE]': "../etc" is not a valid role name: use 1 to 48 letters, digits, '.', '_' or '-', starting with a letter or digit

        For more information, try '--help'.
    "#]],
    );
}

#[test]
fn a_verb_that_does_not_exist_in_json() {
    check(
        &standin("--json xyzzy").output().unwrap(),
        2,
        expect![[r#"
            {"error":{"code":"usage","exit":2,"hint":"standin --help lists the verbs; each has a --help of its own","what":"understand the command line: unrecognized subcommand 'xyzzy'"}}
            error: unrecognized subcommand 'xyzzy'

            Usage: standin [OPTIONS] <COMMAND>

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn a_watch_that_is_piped_ends_with_the_daemon() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("status --watch"),
        14,
        expect![[r#"
        2026-11-20 12:00:00 UTC web active, newest none
        2026-11-20 12:00:00 UTC mail active, newest none
        standin: could not go on watching: the daemon stopped
        hint: start it: systemctl start standin, or: standin serve
    "#]],
    );
}

#[test]
fn cancel_says_whether_anything_was_running() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("cancel"),
        0,
        expect![[r#"
        stopped; transfers keep their last checkpoint, and the next cycle goes on from it
    "#]],
    );
    check(
        &stage.run("cancel web"),
        0,
        expect![[r#"
        stopped; transfers keep their last checkpoint, and the next cycle goes on from it
    "#]],
    );
    check(
        &stage.run("cancel mail"),
        0,
        expect![[r#"
        nothing was running
    "#]],
    );
    check(
        &stage.run("cancel --json"),
        0,
        expect![[r#"
            {
              "cancelled": null,
              "senders": []
            }
        "#]],
    );
    check(
        &stage.run("reload --json"),
        0,
        expect![[r#"
        {}
    "#]],
    );
}

#[test]
fn a_peer_away_is_the_exit_code_of_the_cycle() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("run"),
        13,
        expect![[r#"
        web: took point 1.1
        role web  failed (unreachable)
    "#]],
    );
}

#[test]
fn a_refusal_comes_with_its_hint() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("prune"),
        12,
        expect![[r#"
            standin: could not prune web: a cycle of it is running
            hint: standin status shows it
        "#]],
    );
}

#[test]
fn a_daemon_that_goes_away_is_a_failure() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("check"),
        1,
        expect![[r#"
            standin: could not hear the daemon out: it ended the conversation before it answered (connection closed)
            hint: journalctl -u standin tells why; what was begun goes on when it is back
        "#]],
    );
}

/// A file with mistakes, and no daemon: all mistakes, the daemon, and the exit code of a wrong configuration.
#[test]
fn the_file_can_be_checked_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("standin.toml");
    let check_file = |text: &str, words: &str, code, expected: Expect| {
        std::fs::write(&file, text).unwrap();
        let output = standin(words)
            .args(["--socket", "nowhere.sock", "--config", "standin.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let hide = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            let text = text.replace(&format!("{}/", dir.path().display()), "");
            text.into_bytes()
        };
        let output = Output {
            stdout: hide(output.stdout),
            stderr: hide(output.stderr),
            ..output
        };
        check(&output, code, expected);
    };
    let good = "[node]\nname = \"alder\"\n";
    let bad = "[node]\nnmae = \"alder\"\nreserve = \"much\"\n";
    check_file(
        good,
        "check",
        14,
        expect![[r#"
            PROBLEM  daemon: no such socket: nowhere.sock
                     hint: start it: systemctl start standin, or: standin serve
            ok       config: standin.toml is valid
            1 ok, 0 warnings, 1 problem
        "#]],
    );
    check_file(
        bad,
        "check",
        2,
        expect![[r#"
            PROBLEM  config: standin.toml:2: node.nmae: unknown key: did you mean "name"?
            PROBLEM  config: standin.toml:3: node.reserve = "much": unknown unit "much": use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB
            PROBLEM  daemon: no such socket: nowhere.sock
                     hint: start it: systemctl start standin, or: standin serve
            0 ok, 0 warnings, 3 problems
        "#]],
    );
    check_file(
        bad,
        "check --show-config",
        2,
        expect![[r#"
        standin: could not use the configuration:
        standin.toml:2: node.nmae: unknown key: did you mean "name"?
        standin.toml:3: node.reserve = "much": unknown unit "much": use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB
    "#]],
    );
}

#[test]
fn json_is_what_the_daemon_said() {
    let stage = Stage::new(ordinary);
    let output = stage.run("status --json");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value, status());
}

#[test]
fn live_data_are_not_replaced_unasked() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("restore web"),
        15,
        expect![[r#"
            restore web  from point 1.42, taken 2026-11-20 12:30:05 UTC
              -  put files of 1.42 in place of /srv/web
            standin: could not replace live data unasked: there is no terminal to ask on
            hint: add --yes when it is what you want, or --to DIR to restore beside the live data
        "#]],
    );
    assert_eq!(stage.asked().len(), 1, "only the preview");
}

#[test]
fn restore_does_what_it_showed() {
    let stage = Stage::new(ordinary);
    check(
        &stage.run("restore web --yes"),
        0,
        expect![[r#"
            restore web  from point 1.42, taken 2026-11-20 12:30:05 UTC
              -  put files of 1.42 in place of /srv/web
            restored web  from point 1.42, taken 2026-11-20 12:30:05 UTC
              ok  put files of 1.42 in place of /srv/web
            what was live before is kept as point 1.44; to undo: standin restore web --point 1.44
        "#]],
    );
    let asked = stage.asked();
    assert_eq!(asked[0]["point"], "latest");
    assert_eq!(asked[1]["point"], "20261120T123005Z.1.42");
}

#[test]
fn restore_beside_the_live_data_needs_no_yes() {
    let stage = Stage::new(ordinary);
    let output = stage.run("restore web --to somewhere --json");
    assert_eq!(output.status.code(), Some(0));
    let to = stage.asked()[1]["to"].as_str().unwrap().to_owned();
    assert!(to.starts_with('/'), "{to} means the same to the daemon");
}

#[test]
fn an_invitation_can_come_from_a_pipe() {
    let stage = Stage::new(ordinary);
    let mut child = stage
        .command("pair accept")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"standin-pair:abc\n")
        .unwrap();
    check(
        &child.wait_with_output().unwrap(),
        0,
        expect![[r#"
        got "standin-pair:abc"
    "#]],
    );
    check(
        &stage.run("pair accept"),
        2,
        expect![[r#"
            standin: could not accept an invitation: none was given
            hint: standin pair invite on the other node prints one
        "#]],
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let stage = Stage::new(ordinary);
    let mut child = stage
        .command("status --json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    check(&child.wait_with_output().unwrap(), 0, expect![""]);
}

#[test]
fn interrupts_leave_the_work_running() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut child = standin("run")
        .arg("--socket")
        .arg(&socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let note = json!({ "reply": "event", "event": { "event": "note", "at": "2026-11-20T12:00:00Z",
        "role": "web", "text": "web: sending 1.43 to birch" } });
    writeln!(stream, "{note}").unwrap();
    let mut shown = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut shown).unwrap();
    assert_eq!(shown, "web: sending 1.43 to birch\n");
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    check(
        &child.wait_with_output().unwrap(),
        130,
        expect![[r#"
        the work goes on in the daemon
        hint: see it again with: standin run --attach; stop it with: standin cancel
    "#]],
    );
}

#[test]
fn interrupts_stop_the_work_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let child = standin("run --cancel")
        .arg("--socket")
        .arg(&socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let (mut second, _) = listener.accept().unwrap();
    let mut request = String::new();
    BufReader::new(&second).read_line(&mut request).unwrap();
    assert_eq!(request.trim(), r#"{"verb":"cancel","role":null}"#);
    writeln!(second, r#"{{"reply":"done","value":null}}"#).unwrap();
    writeln!(
        stream,
        "{}",
        json!({ "reply": "failed", "code": "interrupted", "what": "finish the cycle: it was cancelled", "hint": null })
    )
    .unwrap();
    check(
        &child.wait_with_output().unwrap(),
        130,
        expect![[r#"
            stopping; transfers keep their last checkpoint
            standin: could not finish the cycle: it was cancelled
        "#]],
    );
}

#[test]
fn a_command_runs_only_where_the_role_is_active() {
    let stage = Stage::new(|_| {
        let mut status = status();
        status["roles"][1]["state"] = json!("standby");
        done(status)
    });
    let run = |words: &str| {
        let mut command = standin("if-active --socket");
        command.arg(stage.socket()).args(words.split(' '));
        command.output().unwrap()
    };
    check(&run("web -- echo ran --json"), 0, expect![["ran --json\n"]]);
    check(&run("web -- false"), 1, expect![""]);
    check(
        &run("mail -- echo ran"),
        75,
        expect![["standin: not run: alder is standby in role mail\n"]],
    );
    check(&run("--quiet mail -- echo ran"), 75, expect![""]);
    check(
        &run("wbe -- echo ran"),
        17,
        expect![[r#"
        standin: could not find role wbe
        hint: did you mean web?
    "#]],
    );
    check(
        &run("web -- no-such-program"),
        17,
        expect![[r#"
        standin: could not run no-such-program: No such file or directory (os error 2)
    "#]],
    );
    let nobody = standin("if-active --socket /no/such.sock web -- echo ran").output();
    assert_eq!(nobody.as_ref().unwrap().status.code(), Some(14));
    assert_eq!(nobody.unwrap().stdout, b"");
}
