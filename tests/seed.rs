//! Seeded files with real daemons: they are made where and when they should be, left alone where somebody edited them, and a
//! template that means harm, or is wrong, costs nothing but itself.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::Value;
use support::cluster::{MANUAL, Pair, Said, TestNode};
use support::fixture;

/// Looks that nobody rings for come soon.
const HASTE: (&str, &str) = ("STANDIN_HASTE", "20");

fn pair(name: &str) -> Option<Pair> {
    if !fixture::ready(name) {
        return None;
    }
    Some(Pair::new(&["files"], "", MANUAL))
}

/// The place of a seeded file on a node.
fn at(node: &TestNode, name: &str) -> PathBuf {
    node.dir.join("etc").join(name)
}

/// Gives a node's role seeded files `NAME` from `files/NAME.in`, with these further keys, and a word of its own.
fn configure(node: &TestNode, files: &[(&str, &str)]) {
    fs::create_dir_all(node.dir.join("etc")).unwrap();
    let seeds = files.iter().map(|(name, keys)| {
        let to = at(node, name);
        format!(
            "{{ from = \"files/{name}.in\", to = \"{}\"{keys} }}",
            to.display()
        )
    });
    let seeds: Vec<String> = seeds.collect();
    node.edit(
        "keep = ",
        &format!("seed = [{}]\nkeep = ", seeds.join(", ")),
    );
    node.edit(
        "reserve = ",
        &format!("vars = {{ SITE = \"at-{}\" }}\nreserve = ", node.name),
    );
    node.run(&["reload"]).ok();
}

fn template(node: &TestNode, name: &str, text: &str) {
    fs::write(node.live("files").join(format!("{name}.in")), text).unwrap();
}

/// Takes a point on `from` and waits until `to` has it.
fn send(from: &TestNode, to: &TestNode) {
    from.run(&["run", "web", "--attach"]).ok();
    let newest = from.points().pop().unwrap();
    to.wait_for("the point is there", || to.points().contains(&newest));
}

#[track_caller]
fn wait_text(node: &TestNode, name: &str, text: &str) {
    let path = at(node, name);
    let is = || fs::read_to_string(&path).is_ok_and(|now| now == text);
    node.wait_for(&format!("{} holds {text:?}", path.display()), is);
}

fn view(node: &TestNode, name: &str) -> Value {
    let role = node.role();
    let to = at(node, name);
    let mut files = role["seeds"].as_array().unwrap().iter();
    let found = files.find(|file| file["to"] == to.to_str().unwrap());
    found.cloned().unwrap_or(Value::Null)
}

#[track_caller]
fn wait_state(node: &TestNode, name: &str, state: &str) {
    node.wait_for(&format!("{name} is {state}"), || {
        view(node, name)["state"] == state
    });
}

fn seed(node: &TestNode, args: &[&str]) -> Said {
    node.run(&[&["seed", "web"], args].concat())
}

/// Whether the daemon has stopped itself at a named place.
fn is_stopped(node: &TestNode) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    stat.contains(") T ")
}

/// How often the log says so.
fn told(node: &TestNode, text: &str) -> usize {
    node.log().matches(text).count()
}

#[test]
fn each_node_has_its_own_and_a_move_changes_them() {
    let Some(pair) = pair("each_node_has_its_own_and_a_move_changes_them") else {
        return;
    };
    let (alder, birch) = (&pair.alder, &pair.birch);
    let serving = ", when = \"active\"";
    let files = |node: &TestNode| {
        let after = format!(
            ", engine = \"jinja\", mode = \"0640\", after = [\"sh\", \"-c\", \"cat $STANDIN_FILE >> {}\"]",
            node.dir.join("ran").display()
        );
        configure(
            node,
            &[("plain", ""), ("jinja", &after), ("serving", serving)],
        );
    };
    template(
        alder,
        "plain",
        "%NODE% of %ROLE%, active %ACTIVE%, %SITE%, 100%\n",
    );
    template(
        alder,
        "jinja",
        "{% if is_active %}\nactive\n{% endif %}\n{{ node }} {{ vars.SITE }}\n",
    );
    template(alder, "serving", "x\n");
    files(alder);
    files(birch);
    wait_text(
        alder,
        "plain",
        "alder of web, active alder, at-alder, 100%\n",
    );
    wait_text(alder, "jinja", "active\nalder at-alder\n");
    send(alder, birch);
    wait_text(
        birch,
        "plain",
        "birch of web, active alder, at-birch, 100%\n",
    );
    wait_text(birch, "jinja", "birch at-birch\n");
    assert_eq!(
        fs::metadata(at(birch, "jinja"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o640
    );
    assert!(at(alder, "serving").exists() && !at(birch, "serving").exists());
    let ran = |node: &TestNode| fs::read_to_string(node.dir.join("ran")).unwrap_or_default();
    birch.wait_for("the command ran", || ran(birch) == "birch at-birch\n");

    // A point that changes no template changes no file, and runs nothing.
    let before = fs::metadata(at(birch, "jinja"))
        .unwrap()
        .modified()
        .unwrap();
    fs::write(alder.live("files").join("other"), "x").unwrap();
    send(alder, birch);
    let report = seed(birch, &["--json"]).ok().json();
    assert!(
        report["files"]
            .as_array()
            .unwrap()
            .iter()
            .all(|file| file["what"] == "nothing"),
        "{report}"
    );
    assert_eq!(
        fs::metadata(at(birch, "jinja"))
            .unwrap()
            .modified()
            .unwrap(),
        before
    );
    assert_eq!(ran(birch), "birch at-birch\n");

    // A dry run shows what comes, and the next point brings it.
    template(alder, "plain", "%NODE% again\n");
    let dry = seed(alder, &["--dry-run"]).ok();
    assert!(
        dry.out.contains("+alder again") && dry.out.contains("-alder of web"),
        "{dry:?}"
    );
    let check = alder.run(&["check"]);
    assert!(check.out.contains("plain is stale"), "{check:?}");
    send(alder, birch);
    wait_text(birch, "plain", "birch again\n");
    wait_text(alder, "plain", "alder again\n");

    // The role moves: what says who is active is made anew on both.
    alder.run(&["handover", "web", "--to", "birch"]).ok();
    assert_eq!(
        fs::read_to_string(at(birch, "jinja")).unwrap(),
        "active\nbirch at-birch\n"
    );
    assert!(at(birch, "serving").exists());
    wait_text(alder, "jinja", "alder at-alder\n");
    alder.wait_for("the file is not made here now", || {
        view(alder, "serving")["state"] == "idle"
    });
    let check = birch.run(&["check"]);
    assert!(check.out.contains("jinja is fresh"), "{check:?}");
}

#[test]
fn what_somebody_edited_is_left_alone() {
    let Some(pair) = pair("what_somebody_edited_is_left_alone") else {
        return;
    };
    let (alder, birch) = (&pair.alder, &pair.birch);
    template(alder, "a", "one %NODE%\n");
    template(alder, "b", "same\n");
    fs::create_dir_all(birch.dir.join("etc")).unwrap();
    fs::write(at(birch, "a"), "was here\n").unwrap();
    // What is right already is taken over.
    fs::write(at(birch, "b"), "same\n").unwrap();
    configure(alder, &[("a", ""), ("b", "")]);
    configure(birch, &[("a", ""), ("b", "")]);
    send(alder, birch);
    wait_state(birch, "a", "edited");
    wait_state(birch, "b", "fresh");
    assert_eq!(fs::read_to_string(at(birch, "a")).unwrap(), "was here\n");
    let said = seed(birch, &[]);
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.out.contains("--replace"), "{said:?}");
    assert_eq!(
        told(birch, "etc/a is not made from files/a.in"),
        1,
        "told once"
    );
    let warnings = birch.status()["warnings"].to_string();
    assert!(warnings.contains("etc/a is not made from"), "{warnings}");

    let report = seed(birch, &["--replace", "--json"]).ok().json();
    assert_eq!(fs::read_to_string(at(birch, "a")).unwrap(), "one birch\n");
    let kept = report["files"][0]["kept"].as_str().unwrap().to_owned();
    assert!(kept.contains("/a.standin-was-"), "{kept}");
    assert_eq!(fs::read_to_string(kept).unwrap(), "was here\n");

    // An edit outlives new points, until the template says the same.
    fs::write(at(birch, "a"), "two birch\n").unwrap();
    template(alder, "a", "three %NODE%\n");
    send(alder, birch);
    wait_state(birch, "a", "edited");
    assert_eq!(fs::read_to_string(at(birch, "a")).unwrap(), "two birch\n");
    template(alder, "a", "two %NODE%\n");
    send(alder, birch);
    wait_state(birch, "a", "fresh");
    template(alder, "a", "four %NODE%\n");
    send(alder, birch);
    wait_text(birch, "a", "four birch\n");

    // Links and directories are nobody's to replace.
    fs::remove_file(at(birch, "a")).unwrap();
    symlink("/etc/passwd", at(birch, "a")).unwrap();
    let said = seed(birch, &["--replace"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.out.contains("a symbolic link to /etc/passwd is there"),
        "{said:?}"
    );
    assert!(said.out.contains("hint: move it away"), "{said:?}");
    let check = birch.run(&["check"]);
    assert!(
        check.code == 1 && check.out.contains("a is failing"),
        "{check:?}"
    );
    fs::remove_file(at(birch, "a")).unwrap();
    seed(birch, &[]).ok();
    wait_text(birch, "a", "four birch\n");
}

#[test]
fn templates_that_mean_harm() {
    let Some(pair) = pair("templates_that_mean_harm") else {
        return;
    };
    let (alder, birch) = (&pair.alder, &pair.birch);
    let live = alder.live("files");
    fs::write(alder.dir.join("secret"), "root only\n").unwrap();
    symlink("/etc/passwd", live.join("absolute.in")).unwrap();
    symlink("../../../../../../etc/passwd", live.join("up.in")).unwrap();
    symlink("inner", live.join("inside.in")).unwrap();
    fs::write(live.join("inner"), "%NODE%\n").unwrap();
    template(alder, "good", "good %NODE%\n");
    template(alder, "word", "%NOED%\n");
    // Doubles until there is no memory; loops until there is no time.
    let doubling = "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    template(alder, "memory", doubling);
    template(
        alder,
        "time",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
    );
    template(alder, "include", "{% include '/etc/passwd' %}");
    let jinja = ", engine = \"jinja\"";
    let files = [
        ("absolute", ""),
        ("up", ""),
        ("inside", ""),
        ("word", ""),
        ("gone", ""),
        ("memory", jinja),
        ("time", jinja),
        ("include", jinja),
        ("good", ""),
    ];
    for node in [alder, birch] {
        configure(node, &files);
    }
    send(alder, birch);
    for node in [alder, birch] {
        wait_text(node, "good", &format!("good {}\n", node.name));
        wait_text(node, "inside", &format!("{}\n", node.name));
        for (name, why) in [
            ("absolute", "a link that leads out of the dataset"),
            ("up", "a link that leads out of the dataset"),
            ("word", "no such word"),
            ("gone", "it is not there"),
            ("memory", "more than 128 MiB of memory"),
            ("time", "fuel"),
            ("include", "follow the template"),
        ] {
            wait_state(node, name, "failing");
            let text = view(node, name)["why"].as_str().unwrap().to_owned();
            assert!(text.contains(why), "{name}: {text}");
            assert!(!at(node, name).exists(), "{name}");
        }
    }
    // Said once, however often it is tried; the daemon is well, and so is the transfer.
    let again = birch.points().pop().unwrap();
    fs::write(live.join("other"), "x").unwrap();
    send(alder, birch);
    assert_ne!(birch.points().pop().unwrap(), again);
    assert_eq!(seed(birch, &[]).code, 3);
    assert_eq!(
        told(birch, "etc/memory is not made from files/memory.in"),
        1
    );
    // A template that is mended is told too; one that breaks leaves the file as it was.
    template(alder, "word", "%NODE%\n");
    template(alder, "good", "%BAD_WORD%\n");
    send(alder, birch);
    wait_text(birch, "word", "birch\n");
    wait_state(birch, "good", "failing");
    wait_text(birch, "good", "good birch\n");
    assert_eq!(told(birch, "etc/word is well again"), 1);
}

#[test]
fn commands_that_fail_and_crashes() {
    let Some(mut pair) = pair("commands_that_fail_and_crashes") else {
        return;
    };
    template(&pair.alder, "a", "one\n");
    let alder = &mut pair.alder;
    let ready = alder.dir.join("ready");
    let count = alder.dir.join("count");
    let after = format!(
        ", after = [\"sh\", \"-c\", \"echo x >> {}; echo not ready; test -e {}\"]",
        count.display(),
        ready.display()
    );
    let runs = || fs::read_to_string(&count).unwrap_or_default().len() / 2;
    configure(alder, &[("a", &after)]);
    wait_state(alder, "a", "failing");
    let why = view(alder, "a")["why"].to_string();
    assert!(
        why.contains("the command after the change failed") && why.contains("not ready"),
        "{why}"
    );
    assert_eq!(fs::read_to_string(at(alder, "a")).unwrap(), "one\n");
    assert_eq!(runs(), 1, "once for a change");
    alder.run(&["run", "web", "--attach"]).ok();
    assert_eq!(runs(), 1);
    fs::write(&ready, "").unwrap();
    seed(alder, &[]).ok();
    wait_state(alder, "a", "fresh");
    assert_eq!(runs(), 2, "asked for, it is tried again");

    // A template that fails is not well again because the command is.
    fs::remove_file(&ready).unwrap();
    template(alder, "a", "two\n");
    seed(alder, &[]);
    wait_state(alder, "a", "failing");
    fs::write(&ready, "").unwrap();
    template(alder, "a", "%BAD_WORD%\n");
    assert_eq!(seed(alder, &[]).code, 1);
    assert!(view(alder, "a")["why"].to_string().contains("no such word"));

    // Nothing is made by itself while the role is paused, and what is asked for is.
    alder.run(&["pause", "web"]).ok();
    template(alder, "a", "three\n");
    alder.run(&["run", "web", "--attach"]).ok();
    wait_state(alder, "a", "stale");
    assert_eq!(fs::read_to_string(at(alder, "a")).unwrap(), "two\n");
    seed(alder, &[]).ok();
    assert_eq!(fs::read_to_string(at(alder, "a")).unwrap(), "three\n");
    alder.run(&["pause", "web", "--off"]).ok();

    // Killed at each step of a change: in the end the file is right, and the command ran.
    for (number, place) in ["seed-begun", "seed-written"].into_iter().enumerate() {
        alder.kill();
        let before = runs();
        template(alder, "a", &format!("crash {number}\n"));
        alder.launch(&[("STANDIN_FREEZE", place)]);
        let alder_now = &*alder;
        alder_now.wait_for("the daemon stands still", || is_stopped(alder_now));
        alder.kill();
        alder.start_with(&[HASTE]);
        wait_text(alder, "a", &format!("crash {number}\n"));
        wait_state(alder, "a", "fresh");
        alder.wait_for("the command ran", || runs() == before + 1);
    }
}
