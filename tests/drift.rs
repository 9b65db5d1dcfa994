//! Drift between two real daemons: files, packages and commands are compared, and what is not to be told is not.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::cluster::{MANUAL, Pair, TestNode};
use support::fixture;

fn pair(name: &str) -> Option<Pair> {
    if !fixture::ready(name) {
        return None;
    }
    Some(Pair::new(&["files"], "", MANUAL))
}

/// A place of the node's own for what is watched.
fn etc(node: &TestNode) -> PathBuf {
    let etc = node.dir.join("etc");
    fs::create_dir_all(&etc).unwrap();
    etc
}

/// Watches of a node; `ETC` in the lines is its own place.
fn configure(node: &TestNode, watches: &[&str]) {
    let etc = etc(node);
    let tables: Vec<String> = watches
        .iter()
        .map(|watch| format!("{{ {watch} }}"))
        .collect();
    let line = format!("watch = [{}]\nreserve = ", tables.join(", "));
    node.edit("reserve = ", &line.replace("ETC", etc.to_str().unwrap()));
    node.run(&["reload"]).ok();
}

/// `watch item state` of everything that was compared with the only peer; the places of both nodes are one word.
fn states(pair: &Pair, report: &Value) -> Vec<String> {
    let dirs = [&pair.alder, &pair.birch].map(|node| etc(node).display().to_string());
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or("-");
        text.replace(&dirs[0], "ETC").replace(&dirs[1], "ETC")
    };
    let compared = report["peers"][0]["compared"].as_array().unwrap().iter();
    let line = |one: &Value| {
        format!(
            "{} {} {}",
            text(&one["watch"]),
            text(&one["item"]),
            text(&one["state"])
        )
    };
    compared.map(line).collect()
}

fn warned(node: &TestNode) -> usize {
    node.log().matches("standin drift").count()
}

#[test]
fn files_packages_and_commands() {
    let Some(pair) = pair("files_packages_and_commands") else {
        return;
    };
    let (alder, birch) = (&pair.alder, &pair.birch);
    // By paths that are the same on both, as they would be on two machines.
    let shared = tempfile::tempdir().unwrap();
    let one = shared.path().join("one.conf");
    fs::write(&one, "same\n").unwrap();
    let file = format!("file = \"{}/*.conf\"", shared.path().display());
    let who = |node: &TestNode| {
        format!(
            "name = \"who\", command = [\"sh\", \"-c\", \"echo node {}; echo same; exit 3\"]",
            node.name
        )
    };
    let as_whom = "name = \"as\", command = \"id -u\", user = \"nobody\"";
    let slow = "name = \"slow\", command = \"sleep 1000\", timeout = \"200ms\"";
    for node in [alder, birch] {
        let accepts = format!(
            "{}, accept = [\"node [a-z]+\"]",
            who(node).replace("who", "accepts")
        );
        let here = if node.name == "alder" {
            "name = \"alone\", package = \"dpkg\""
        } else {
            as_whom
        };
        configure(
            node,
            &[
                &file,
                "package = \"dpkg\"",
                &who(node),
                &accepts,
                as_whom.replace("as\"", "id\"").as_str(),
                slow,
                here,
            ],
        );
    }
    let report = alder.run(&["drift", "--json"]);
    assert_eq!(report.code, 18, "{report:?}");
    let report = report.json();
    let file_name = format!("{}/*.conf {} same", shared.path().display(), one.display());
    assert_eq!(
        states(&pair, &report),
        [
            file_name.as_str(),
            "dpkg dpkg same",
            "who - differs",
            "accepts - same",
            "id - same",
            "slow - unreadable-here",
            "slow - unreadable-there",
            "alone - not-watched-there",
        ]
    );
    let diff = report["peers"][0]["compared"][2]["diff"].as_str().unwrap();
    assert_eq!(
        diff,
        "--- alder\n+++ birch\n@@ -1,3 +1,3 @@\n-node alder\n+node birch\n same\n (exit status: 3)\n"
    );
    let said = alder.run(&["drift", "birch", "who"]);
    assert_eq!(said.code, 18, "{said:?}");
    assert!(
        said.out.contains("peer birch  1 difference, 0 the same")
            && said.out.contains("+node birch"),
        "{said:?}"
    );
    alder.run(&["drift", "accepts"]).ok();
    let said = alder.run(&["drift", "alone"]);
    assert!(
        said.code == 3 && said.out.contains("not watched on birch with alder"),
        "{said:?}"
    );
    let said = alder.run(&["drift", "whi"]);
    assert!(
        said.code == 17 && said.err.contains("did you mean \"who\"?"),
        "{said:?}"
    );
    let check = alder.run(&["check"]);
    assert!(
        check
            .out
            .contains("watch slow: could not run sleep within 200ms: it was stopped"),
        "{check:?}"
    );
    assert!(
        check.out.contains("watch dpkg: package is read"),
        "{check:?}"
    );
    // The other way round it is the same difference.
    let said = birch.run(&["drift", "who"]);
    assert!(
        said.code == 18 && said.out.contains("+node alder"),
        "{said:?}"
    );
}

#[test]
fn status_counts_and_the_log_says_it_once() {
    let Some(mut pair) = pair("status_counts_and_the_log_says_it_once") else {
        return;
    };
    let line = |text: &str| format!("name = \"a\", command = [\"cat\", \"ETC/{text}\"]");
    let (a, b) = (line("a"), line("a"));
    for node in [&pair.alder, &pair.birch] {
        fs::write(etc(node).join("a"), format!("of {}\n", node.name)).unwrap();
    }
    configure(&pair.birch, &[&b]);
    configure(&pair.alder, &[&a]);
    let drift = |node: &TestNode| node.status()["peers"][0]["drift"].clone();
    let alder = &pair.alder;
    // After the reload, by itself.
    alder.wait_for("it is compared", || drift(alder)["differences"] == 1);
    let warnings = alder.status()["warnings"].to_string();
    assert!(
        warnings.contains("1 difference from birch: standin drift birch (compared "),
        "{warnings}"
    );
    assert_eq!(warned(alder), 1, "{}", alder.log());
    for _ in 0..3 {
        assert_eq!(alder.run(&["drift"]).code, 18);
    }
    assert_eq!(warned(alder), 1, "{}", alder.log());
    fs::write(etc(alder).join("a"), "of birch\n").unwrap();
    alder.wait_for("nothing differs", || alder.run(&["drift"]).code == 0);
    assert_eq!(drift(alder)["differences"], 0);
    assert!(
        !alder.status()["warnings"]
            .to_string()
            .contains("standin drift")
    );
    // A link that comes up compares; a peer that is away is told.
    fs::write(etc(alder).join("a"), "of alder\n").unwrap();
    pair.birch.stop();
    let alder = &pair.alder;
    alder.wait_for("the link is down", || {
        alder.status()["peers"][0]["linked"] == false
    });
    let said = alder.run(&["drift"]);
    assert!(
        said.code == 13 && said.out.contains("not compared"),
        "{said:?}"
    );
    pair.birch.start();
    let alder = &pair.alder;
    alder.wait_for("it is compared again", || drift(alder)["differences"] == 1);
    assert_eq!(warned(alder), 2, "{}", alder.log());
}

#[test]
fn what_is_not_to_be_told() {
    let Some(pair) = pair("what_is_not_to_be_told") else {
        return;
    };
    let (alder, birch) = (&pair.alder, &pair.birch);
    let secret = tempfile::tempdir().unwrap();
    let file = |name: &str| secret.path().join(name).display().to_string();
    fs::write(file("key"), "hunter2\n").unwrap();
    std::os::unix::fs::symlink("key", file("link")).unwrap();
    fs::write(file("steers"), "\u{1b}[2J\u{7}boo\n").unwrap();
    let watch = |name: &str, of: &str, more: &str| {
        format!("name = \"{name}\", file = \"{}\"{more}", file(of))
    };
    let cat = |of: &str| {
        format!(
            "[\"sh\", \"-c\", \"cat {} {}\"]",
            file(of),
            "$(ls -d /nothing 2>/dev/null)"
        )
    };
    let other = etc(alder).join("other");
    fs::write(&other, "mine\n").unwrap();
    let by_command = format!("name = \"cmd\", secret = true, command = {}", cat("key"));
    configure(
        birch,
        &[
            &watch("key", "key", ", secret = true"),
            &by_command,
            &watch("link", "link", ""),
            &watch("steers", "steers", ""),
            &watch("others", "key", ", peers = []"),
        ],
    );
    let ours = |name: &str| format!("name = \"{name}\", file = \"{}\"", other.display());
    let command = format!(
        "name = \"cmd\", command = [\"cat\", \"{}\"]",
        other.display()
    );
    configure(
        alder,
        &[
            &ours("key"),
            &command,
            &ours("link"),
            &format!("name = \"steers\", file = \"{}\"", file("none")),
            &ours("others"),
        ],
    );
    let said = alder.run(&["drift"]);
    let json = alder.run(&["drift", "--json"]);
    for text in [&said.out, &json.out] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(
        said.out.contains("not watched on birch with alder  others"),
        "{said:?}"
    );
    assert!(
        said.out
            .contains("cmd\n    secret: the difference is not shown"),
        "{said:?}"
    );
    assert!(
        !said.out.contains('\u{1b}') && !said.out.contains('\u{7}'),
        "{said:?}"
    );
}
