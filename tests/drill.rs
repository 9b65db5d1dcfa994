//! Drills with real daemons: they pass and fail for what is in the copy, touch nothing else, and leave nothing behind however
//! they end.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;
use support::cluster::{MANUAL, Pair, Said, TestNode, wait};
use support::fixture;

/// Two nodes that both hold 1.1, whose files/index.html says `welcome`.
fn pair(name: &str) -> Option<Pair> {
    if !fixture::ready(name) {
        return None;
    }
    let pair = Pair::new(&["files", "db"], "", MANUAL);
    let said = pair.birch.run(&["drill", "web"]);
    assert_eq!(said.code, 17, "there is nothing to drill yet: {said:?}");
    write(&pair, "welcome");
    Some(pair)
}

/// Writes the index and brings it to birch as a point.
fn write(pair: &Pair, text: &str) {
    fs::write(pair.alder.live("files").join("index.html"), text).unwrap();
    pair.alder.run(&["run", "web", "--attach"]).ok();
    let newest = pair.alder.points().pop().unwrap();
    pair.wait_stored(&newest);
}

/// Gives the node's role lines of `drill.`.
fn configure(node: &TestNode, lines: &str) {
    node.edit("keep = ", &format!("{lines}\nkeep = "));
    node.run(&["reload"]).ok();
}

fn shell(script: &str) -> String {
    format!("[\"sh\", \"-c\", '''{script}''']")
}

/// A drill whose `start` leaves a process, and whose check takes for ever; `stop` only notes that it was called.
fn endless(node: &TestNode) -> String {
    let dir = node.dir.display();
    format!(
        "drill.start = {}\ndrill.checks = [{}]\ndrill.stop = {}",
        shell(&format!(
            "sleep 1000 & echo $! > {dir}/service; touch {dir}/serving"
        )),
        shell(&format!("echo $$ > {dir}/check; exec sleep 1000")),
        shell(&format!(
            "rm {dir}/serving; echo $STANDIN_POINT >> {dir}/stopped"
        )),
    )
}

/// Begins a drill and waits until its check runs.
fn begin(node: &TestNode) -> Child {
    let _ = fs::remove_file(node.dir.join("check"));
    let mut command = node.command(&["drill", "web"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    node.wait_for("the check runs", || pid(node, "check").is_some());
    assert!(!mounts(node).is_empty(), "the copy is shown meanwhile");
    assert!(room(node).exists());
    child
}

fn end(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn pid(node: &TestNode, name: &str) -> Option<u32> {
    let text = fs::read_to_string(node.dir.join(name)).ok()?;
    text.trim().parse().ok()
}

fn runs(pid: Option<u32>) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.unwrap()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Where the copies lie.
fn room(node: &TestNode) -> PathBuf {
    node.disk.path().join(".standin/.drill/web")
}

/// Where they are shown.
fn mounts(node: &TestNode) -> Vec<String> {
    let below = node.dir.join("run/drill");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let ours = points.filter(|point| Path::new(point).starts_with(&below));
    ours.map(str::to_owned).collect()
}

fn is_clean(node: &TestNode) -> bool {
    mounts(node).is_empty() && !room(node).exists()
}

#[track_caller]
fn clean(node: &TestNode) {
    let (mounts, room) = (mounts(node), room(node));
    assert!(mounts.is_empty(), "{mounts:?}\n{}", node.log());
    assert!(!room.exists(), "{}", node.log());
    assert_eq!(node.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn passes_or_fails_for_what_is_in_the_copy() {
    let Some(pair) = pair("passes_or_fails_for_what_is_in_the_copy") else {
        return;
    };
    let birch = &pair.birch;
    let words = "$STANDIN_ROLE $STANDIN_NODE $STANDIN_POINT $STANDIN_MOMENT";
    let look = shell(&format!(
        "cd $STANDIN_DRILL && test -d db && echo {words} && echo x > files/scratch"
    ));
    let grep = shell(
        "cat $STANDIN_DRILL/files/index.html; grep -q welcome $STANDIN_DRILL/files/index.html",
    );
    configure(birch, &format!("drill.checks = [{look}, {grep}]"));
    let before = birch.role();
    let said = birch.run(&["drill", "web", "--dry-run"]).ok();
    assert!(
        said.out.contains("- ") && said.out.contains("grep"),
        "{said:?}"
    );
    assert!(said.out.contains("nothing was changed"), "{said:?}");
    clean(birch);
    assert_eq!(birch.role()["drill"], Value::Null);
    assert_eq!(birch.role()["points"], before["points"]);
    assert!(birch.run(&["status"]).ok().out.contains("drill  never"));

    let said = birch.run(&["drill", "web"]).ok();
    assert!(
        said.out.contains("| web birch 2") && said.out.contains(".1.1 drill"),
        "{said:?}"
    );
    clean(birch);
    let last = birch.role()["drill"].clone();
    assert_eq!(last["passed"], Value::Bool(true), "{last}");
    assert_eq!(last["point"]["short"], "1.1");
    assert!(!birch.snapshot("1.1", "files").join("scratch").exists());

    write(&pair, "sorry");
    let said = birch.run(&["drill", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("| sorry") && said.out.contains("FAILED"),
        "{said:?}"
    );
    clean(birch);
    let status = birch.status();
    assert_eq!(status["roles"][0]["drill"]["passed"], Value::Bool(false));
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("the last drill FAILED (1.2)"),
        "{warnings}"
    );
    let shown = birch.run(&["status"]).ok().out;
    assert!(shown.contains("it said: sorry"), "{shown}");
    let said = birch
        .run(&["drill", "web", "--point", "1.1", "--json"])
        .ok();
    assert_eq!(said.json()["passed"], Value::Bool(true));
    assert_eq!(birch.run(&["drill", "web", "--point", "1.7"]).code, 17);

    // The active node has no checks: everything is read, and its live data are as they were.
    let said = pair.alder.run(&["drill", "web"]).ok();
    assert!(
        said.out.contains("read every file: 1 files, 5 B"),
        "{said:?}"
    );
    clean(&pair.alder);
    assert_eq!(pair.alder.role()["state"], "active");
    let said = pair.alder.run(&["run", "web", "--attach"]).ok();
    assert_eq!(pair.alder.points().len(), 2, "nothing changed: {said:?}");
    // And what is remembered survives a restart.
    let mut birch = pair.birch;
    birch.stop();
    birch.start();
    assert_eq!(birch.role()["drill"]["passed"], Value::Bool(true));
}

#[test]
fn a_limit_or_a_cancel_ends_it() {
    let Some(pair) = pair("a_limit_or_a_cancel_ends_it") else {
        return;
    };
    let birch = &pair.birch;
    configure(birch, &endless(birch));
    let child = begin(birch);
    assert!(birch.status()["roles"][0]["drilling"].as_bool().unwrap());
    let said = birch.run(&["drill", "web"]);
    assert_eq!(said.code, 12, "one at a time: {said:?}");
    // Points come meanwhile.
    write(&pair, "while it runs");
    birch.run(&["cancel", "web"]).ok();
    let said = end(child);
    assert_eq!(said.code, 130, "{said:?}");
    clean(birch);
    let dead = || !runs(pid(birch, "service")) && !runs(pid(birch, "check"));
    assert!(dead());
    assert!(!birch.dir.join("serving").exists(), "stop was called");
    assert_eq!(birch.role()["drill"], Value::Null, "no verdict");

    configure(birch, "drill.timeout = \"1s\"");
    let said = birch.run(&["drill", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("not over within 1s"), "{said:?}");
    assert!(said.out.contains("ok  stop sh"), "{said:?}");
    clean(birch);
    assert!(dead());
    assert_eq!(birch.role()["drill"]["passed"], Value::Bool(false));

    // The orderly stop of a daemon ends it too.
    configure(birch, "drill.every = \"30d\"");
    birch.edit("drill.timeout = \"1s\"", "drill.timeout = \"1h\"");
    birch.run(&["reload"]).ok();
    let child = begin(birch);
    let mut birch = pair.birch;
    assert_eq!(birch.stop(), 0, "{}", birch.log());
    assert_ne!(end(child).code, 0);
    clean(&birch);
    birch.start();
    assert_eq!(birch.role()["drill"]["passed"], Value::Bool(false));
}

#[test]
fn killed_in_the_middle() {
    let Some(pair) = pair("killed_in_the_middle") else {
        return;
    };
    let mut birch = pair.birch;
    configure(&birch, &endless(&birch));
    let child = begin(&birch);
    birch.kill();
    assert_ne!(end(child).code, 0);
    assert!(!is_clean(&birch) && runs(pid(&birch, "service")));
    birch.start();
    birch.wait_for("nothing is left", || is_clean(&birch));
    clean(&birch);
    assert!(!runs(pid(&birch, "service")) && !runs(pid(&birch, "check")));
    let stopped = fs::read_to_string(birch.dir.join("stopped")).unwrap();
    assert!(
        stopped.trim().ends_with(".1.1"),
        "it knew the point: {stopped:?}"
    );
    assert_eq!(birch.role()["drill"], Value::Null);

    birch.edit("exec sleep 1000", "true");
    for (place, left) in [
        ("drill-copied", true),
        ("drill-shown", true),
        // The first two times nothing is there: at the start, and before the copy.
        ("drill-unmounted:3", true),
        ("drill-half-gone:1", true),
        ("drill-half-gone:2", true),
    ] {
        birch.stop();
        birch.start_with(&[("STANDIN_FREEZE", place)]);
        let mut command = birch.command(&["drill", "web"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stat = format!("/proc/{}/stat", birch.pid());
        let frozen = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
        assert!(wait(frozen), "{place} is never reached\n{}", birch.log());
        birch.kill();
        assert!(!child.wait().unwrap().success());
        assert_eq!(!is_clean(&birch), left, "{place}");
        birch.start();
        birch.wait_for("nothing is left", || is_clean(&birch));
        clean(&birch);
    }
    birch.run(&["drill", "web"]).ok();
    clean(&birch);
}

#[test]
fn begins_by_itself_and_not_while_paused() {
    let Some(pair) = pair("begins_by_itself_and_not_while_paused") else {
        return;
    };
    let birch = &pair.birch;
    let begun = || birch.log().matches("a drill of 1.1 begins").count();
    birch.run(&["pause", "web"]).ok();
    configure(birch, "drill.every = \"7d\"");
    // By hand it is done; had one begun by itself, there were two.
    birch.run(&["drill", "web"]).ok();
    assert_eq!(begun(), 1, "{}", birch.log());
    birch.run(&["pause", "web", "--off"]).ok();
    let ended = |node: &TestNode| node.role()["drill"]["ended"].clone();
    let before = ended(birch);
    birch.edit("drill.every = \"7d\"", "drill.every = \"1s\"");
    birch.wait_for("one begins by itself", || {
        birch.run(&["reload"]).ok();
        ended(birch) != before
    });
    assert!(birch.log().contains("the drill of 1.1 passed"));
    birch.wait_for("it tidied up", || is_clean(birch));
}

#[test]
fn a_promotion_comes_first() {
    let Some(pair) = pair("a_promotion_comes_first") else {
        return;
    };
    let Pair {
        mut alder, birch, ..
    } = pair;
    // The services of the role cannot start while those of the drill run, which take their time.
    let slowly = endless(&birch).replace("rm ", "sleep 2; rm ");
    configure(&birch, &slowly);
    let free = shell(&format!("test ! -e {}/serving", birch.dir.display()));
    configure(&birch, &format!("hooks.before-start = {free}"));
    let child = begin(&birch);
    alder.kill();
    let said = birch.run(&[
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        "1.1",
    ]);
    assert_eq!(said.code, 0, "{said:?}\n{}", birch.log());
    assert_eq!(birch.role()["state"], "active");
    assert!(!birch.log().contains("go past the hook"), "{}", birch.log());
    assert_eq!(end(child).code, 130);
    clean(&birch);
    assert!(!runs(pid(&birch, "service")) && !runs(pid(&birch, "check")));
    let live = fs::read_to_string(birch.live("files").join("index.html")).unwrap();
    assert_eq!(live, "welcome");
}
