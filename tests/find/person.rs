//! A person at a terminal.

use std::io::Write;
use std::process::Stdio;

use crate::stage::{text, with_history};
use crate::support::cluster::TestNode;
use crate::support::fixture::ready;

/// Types the lines on a terminal of its own, and gives what was shown.
fn typed(node: &TestNode, words: &str, lines: &str) -> String {
    let program = env!("CARGO_BIN_EXE_standin");
    let config = node.config_path();
    let line = format!(
        "NO_COLOR=1 TZ=UTC {program} --config {} {words}",
        config.display()
    );
    let mut terminal = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(lines.as_bytes()).unwrap();
    // The end of the input would hang the terminal up before all is read.
    let shown = terminal.wait_with_output();
    drop(keys);
    String::from_utf8_lossy(&shown.unwrap().stdout).into_owned()
}

#[test]
fn a_person_is_asked_step_by_step() {
    if !ready("a_person_is_asked_step_by_step") {
        return;
    }
    if std::process::Command::new("script")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("SKIPPED a_person_is_asked_step_by_step: no script(1)");
        return;
    }
    let node = with_history();
    let a = node.live("files").join("a");
    let said = |lines: &str, expected: &[&str]| {
        let shown = typed(&node, "restore", lines);
        for piece in expected {
            assert!(
                shown.contains(piece),
                "{lines:?}: {piece:?} is not in {shown}"
            );
        }
    };
    said(
        "\n",
        &["role web", "1.5", "Which point?", "nothing was changed"],
    );
    said(
        "77\nsoon\n5 years ago\n\n",
        &[
            "that is neither",
            "no point is that old",
            "nothing was changed",
        ],
    );
    let path = a.to_str().unwrap();
    let same = format!("the same as: standin restore web --point 1.1 --path {path}");
    let asked = [
        "CHANGED SINCE",
        "dataset files",
        &same,
        "Replace the live data as shown?",
        "nothing was changed",
    ];
    said(&format!("1.1\n{path}\nl\nn\n"), &asked);
    assert_eq!(text(&a), "three\n");
    said(
        &format!("5\n{path}\nl\ny\n"),
        &[
            "restored web  from point 1.1",
            "to undo: standin restore web --point 1.6",
        ],
    );
    assert_eq!(text(&a), "one\n");
    let out = node.dir.join("out");
    let out = out.to_str().unwrap();
    // What was written in the second of the restore may have been kept as one more point.
    let newest = node.points().pop().unwrap();
    let held = text(&node.snapshot(&newest, "files").join("a"));
    let newest = format!("that is {newest}");
    said(
        &format!("now\n2\n{out}\n"),
        &[&newest, "--dataset files", "restored web"],
    );
    assert_eq!(text(&node.dir.join("out/files/a")), held);
}
