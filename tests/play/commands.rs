//! Commands and hooks: environment, limits, output, and that nothing is left behind.

use std::time::{Duration, Instant};

use standin::host::command::{self, Failed, Order};
use standin::host::hook;
use standin::logic::play::{Hook, Moment};

use crate::{Stage, block, lives, wait};

fn order<'a>(argv: &'a [String], limit: Duration) -> Order<'a> {
    Order {
        argv,
        moment: "test",
        limit,
        words: Vec::new(),
        output: None,
    }
}

const LONG: Duration = Duration::from_secs(30);

/// What a script says, and how it ends: `ok`, or the error.
fn check(script: &str, expected: &str) {
    let stage = Stage::set();
    let argv = stage.script("it", script);
    let said = block(command::run(&order(&argv, LONG), &stage.around));
    let told = match said {
        Ok(said) => format!("ok: {said}"),
        Err(failed) => failed.to_string(),
    };
    let told = told.replace(&argv[0], "IT");
    assert_eq!(told, expected, "{script}");
}

#[test]
fn what_they_say_and_how_they_end() {
    check("echo a; echo b >&2", "ok: a\nb");
    check("true", "ok: ");
    check("printf 'a\\033[1mb\\n\\n'", "ok: a [1mb");
    check("cat; pwd", "ok: /");
    check("exit 3", "run IT to a good end: exit status: 3");
    check(
        "echo no; exit 3",
        "run IT to a good end: exit status: 3; it said: no",
    );
    check("kill -9 $$", "run IT to a good end: signal: 9 (SIGKILL)");
    check(
        "echo a; echo b; exit 1",
        "run IT to a good end: exit status: 1; the end of what it said:\n  a\n  b",
    );
    // Its own session, and nothing of the daemon's environment.
    check("ps -o sid= -p $$ | grep -qw $$ && echo own", "ok: own");
    check(
        "env | sed 's/=.*//' | grep -v -x -e _ -e PWD -e SHLVL | sort | tr '\\n' ' '",
        "ok: PATH STANDIN_MOMENT STANDIN_NODE STANDIN_ROLE STANDIN_RUN STANDIN_TERM",
    );
    check(
        "echo $STANDIN_ROLE $STANDIN_TERM $STANDIN_MOMENT",
        "ok: web 7 test",
    );
}

#[test]
fn programs_that_are_not_there() {
    let stage = Stage::set();
    for program in ["/no/such/program", "no-such-program", "/etc/passwd"] {
        let argv = [program.to_owned()];
        let failed = block(command::run(&order(&argv, LONG), &stage.around)).unwrap_err();
        assert!(matches!(failed, Failed::NotStarted { .. }), "{failed}");
        assert!(failed.to_string().contains(program), "{failed}");
    }
}

#[test]
fn the_end_of_much_output_is_kept() {
    let stage = Stage::set();
    let argv = stage.script("much", "i=0; while [ $i -lt 40 ]; do head -c 1000000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo; echo end");
    let said = block(command::run(&order(&argv, LONG), &stage.around)).unwrap();
    assert!(said.len() <= 64 << 10, "{}", said.len());
    assert!(said.len() > 30 << 10, "{}", said.len());
    assert!(said.ends_with("x\nend"));
}

#[test]
fn a_limit_ends_all_of_it() {
    let stage = Stage::set();
    // One that stays in the session, one that leaves it, one that does not listen to SIGTERM.
    let argv = stage.script(
        "slow",
        "echo begun
         sleep 1000 & echo $! > DIR/inside
         setsid sh -c 'echo $$ > DIR/outside; exec sleep 1000' &
         (trap '' TERM; setsid sh -c 'echo $$ > DIR/deaf; while :; do sleep 1; done') &
         wait",
    );
    let began = Instant::now();
    let failed = block(command::run(
        &order(&argv, Duration::from_secs(2)),
        &stage.around,
    ))
    .unwrap_err();
    let took = began.elapsed();
    let pids = ["inside", "outside", "deaf"].map(|name| stage.pid(name));
    assert_eq!(pids.map(lives), [false; 3], "{failed}");
    let Failed::TooLong {
        survivors, said, ..
    } = &failed
    else {
        panic!("{failed}");
    };
    assert!(survivors.is_empty(), "{failed}");
    assert_eq!(said, "begun");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        failed
            .to_string()
            .contains("within 2s: it was stopped; it said: begun"),
        "{failed}"
    );
}

#[test]
fn what_a_command_leaves_running_does_not_keep_it() {
    let stage = Stage::set();
    let argv = stage.script("leaves", "sleep 1000 & echo $! > DIR/left; echo done");
    let began = Instant::now();
    let said = block(command::run(&order(&argv, LONG), &stage.around)).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(said, "done");
    let left = stage.pid("left");
    assert!(lives(left));
    crate::kill(left);
    wait("the end of the process", || (!lives(left)).then_some(()));
}

#[test]
fn hooks_have_their_own_limit_or_a_shorter_one() {
    let stage = Stage::set();
    let hook = Hook {
        run: stage.script(
            "hook",
            "echo $STANDIN_MOMENT; [ -e DIR/go ] || exec sleep 1000",
        ),
        timeout: LONG,
    };
    let short = Some(Duration::from_millis(300));
    let failed = block(hook::run(&hook, Moment::BeforeStop, &stage.around, short)).unwrap_err();
    assert!(failed.to_string().contains("within 300ms"), "{failed}");
    std::fs::write(stage.path("go"), "").unwrap();
    let said = block(hook::run(&hook, Moment::BeforeStop, &stage.around, None)).unwrap();
    assert_eq!(said, "before-stop");
}

#[test]
fn a_command_holds_nothing_of_the_daemon() {
    let stage = Stage::set();
    let _held = tempfile::tempfile().unwrap();
    let argv = stage.script("list", "ls /proc/self/fd | wc -l");
    let said = block(command::run(&order(&argv, LONG), &stage.around)).unwrap();
    let plain = std::process::Command::new(&argv[0]).output().unwrap();
    assert_eq!(said, String::from_utf8_lossy(&plain.stdout).trim());
}
