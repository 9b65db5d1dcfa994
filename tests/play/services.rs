//! Services that systemd does not know, played by shell scripts.

use std::time::{Duration, Instant};

use standin::host::service;
use standin::logic::play::{CommandService, Service};

use crate::{Stage, block, kill, lives, wait};

/// A service that writes its pid into `pid`, by scripts that may be replaced.
fn app(stage: &Stage, timeout: Duration) -> Service {
    let start = "[ ! -e DIR/fail ] || { echo no luck; exit 1; }
        sh -c 'trap \"\" HUP; echo serving; echo $$ > DIR/pid; while :; do sleep 0.1; done' &";
    Service::Command(CommandService {
        name: "app".into(),
        start: stage.script("start", start),
        stop: stage.script("stop", "kill $(cat DIR/pid)"),
        health: stage.script("health", ALIVE),
        timeout,
    })
}

/// Here nobody may reap what its parent left: a zombie does not run.
const ALIVE: &str = "grep -q '^State:.[^Z]' /proc/$(cat DIR/pid)/status";

const LONG: Duration = Duration::from_secs(20);

#[test]
fn starts_runs_and_stops_and_each_again() {
    let stage = Stage::set();
    let (service, around) = (app(&stage, LONG), &stage.around);
    block(async {
        assert!(!service::runs(&service, around).await.unwrap());
        let said = service::start(&service, around).await.unwrap();
        assert!(
            said.sentence.starts_with("service app runs, after"),
            "{said:?}"
        );
        assert!(service::runs(&service, around).await.unwrap());
        let pid = stage.pid("pid");
        let said = service::start(&service, around).await.unwrap();
        assert_eq!(said.sentence, "service app runs already");
        assert_eq!(stage.pid("pid"), pid, "it was started twice");
        let log = std::fs::read_to_string(around.output.join("web+app.log")).unwrap();
        assert_eq!(log, "serving\n");
        service::stop(&service, around, false).await.unwrap();
        assert!(!lives(pid));
        std::fs::remove_file(stage.path("pid")).unwrap();
        // Nothing to stop: the stop command fails, and all is well.
        let said = service::stop(&service, around, false).await.unwrap();
        assert!(said.output.contains("exit status"), "{said:?}");
    });
}

#[test]
fn a_service_outlives_who_started_it() {
    let stage = Stage::set();
    let (service, around) = (app(&stage, LONG), &stage.around);
    // The runtime that started it is gone after this.
    block(service::start(&service, around)).unwrap();
    let pid = stage.pid("pid");
    assert!(lives(pid));
    assert!(block(service::runs(&service, around)).unwrap());
    block(service::stop(&service, around, false)).unwrap();
    assert!(!lives(pid));
}

/// Starting fails within `most`, and the error names and shows.
fn fails(stage: &Stage, service: &Service, shows: &[&str]) {
    let error = format!(
        "{:#}",
        block(service::start(service, &stage.around)).unwrap_err()
    );
    for word in shows {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn a_start_that_fails_shows_why() {
    let stage = Stage::set();
    let service = app(&stage, Duration::from_secs(2));
    std::fs::write(stage.path("fail"), "").unwrap();
    fails(
        &stage,
        &service,
        &["start service app", "exit status: 1", "no luck"],
    );
    std::fs::remove_file(stage.path("fail")).unwrap();
    // It starts, and is never healthy.
    stage.script("health", "echo not yet; exit 9");
    fails(
        &stage,
        &service,
        &["healthy within 2s", "serving", "exit status: 9", "not yet"],
    );
    // A start that hangs.
    stage.script("start", "echo thinking; sleep 1000");
    fails(&stage, &service, &["within 2s", "thinking"]);
    let pid = stage.pid("pid");
    block(service::stop(&service, &stage.around, false)).unwrap();
    assert!(!lives(pid), "the one that was never healthy");
}

#[test]
fn a_stop_that_does_nothing_is_helped() {
    for (stop, urgent) in [("true", false), ("sleep 1000", true), ("exit 1", true)] {
        let stage = Stage::set();
        let (service, around) = (app(&stage, Duration::from_secs(2)), &stage.around);
        stage.script("stop", stop);
        block(service::start(&service, around)).unwrap();
        let pid = stage.pid("pid");
        let began = Instant::now();
        let said = block(service::stop(&service, around, urgent)).unwrap();
        assert!(!lives(pid), "{stop}");
        assert!(said.output.contains("killed"), "{said:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{stop}");
    }
}

#[test]
fn a_stop_is_not_believed_without_proof() {
    // Healthy for ever, and unknown for ever: neither has stopped.
    for health in ["true", "sleep 1000"] {
        let stage = Stage::set();
        let service = app(&stage, Duration::from_secs(1));
        stage.script("health", health);
        let error = block(service::stop(&service, &stage.around, true)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("stop service app: see it gone"), "{error}");
    }
    // A health that is not there says nothing either.
    let stage = Stage::set();
    let service = app(&stage, Duration::from_secs(1));
    std::fs::remove_file(stage.path("health")).unwrap();
    assert!(block(service::stop(&service, &stage.around, true)).is_err());
    assert!(block(service::runs(&service, &stage.around)).is_err());
}

#[test]
fn a_service_that_is_slow_to_come_is_waited_for() {
    let stage = Stage::set();
    let service = app(&stage, LONG);
    stage.script("health", &format!("[ -e DIR/ready ] && {ALIVE}"));
    let ready = stage.path("ready");
    let pid_file = stage.path("pid");
    let waiter = std::thread::spawn(move || {
        wait("the service", || pid_file.exists().then_some(()));
        std::fs::write(ready, "").unwrap();
    });
    block(service::start(&service, &stage.around)).unwrap();
    waiter.join().unwrap();
    let pid = stage.pid("pid");
    kill(pid);
    wait("its end", || (!lives(pid)).then_some(()));
    assert!(!block(service::runs(&service, &stage.around)).unwrap());
}

/// A stop that nobody waits for any more has not ended: what it is about to stop does not count as running.
#[test]
fn a_stop_that_was_left_alone_ends_before_the_next_start() {
    let stage = Stage::set();
    let Service::Command(mut service) = app(&stage, LONG) else {
        panic!("a service of commands");
    };
    let slow =
        "touch DIR/stopping; while [ ! -e DIR/go ]; do sleep 0.05; done; kill $(cat DIR/pid)";
    service.stop = stage.script("stop", slow);
    let (service, around) = (Service::Command(service), &stage.around);
    block(async {
        service::start(&service, around).await.unwrap();
        let pid = stage.pid("pid");
        let stopping = async {
            while !stage.path("stopping").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            stopped = service::stop(&service, around, false) => panic!("{stopped:?}"),
            () = stopping => {}
        }
        // It runs, and health says so; but not for long.
        assert!(service::runs(&service, around).await.unwrap());
        let early = Duration::from_millis(500);
        let said = tokio::time::timeout(early, service::start(&service, around)).await;
        assert!(said.is_err(), "{said:?}");
        std::fs::write(stage.path("go"), "").unwrap();
        let said = service::start(&service, around).await.unwrap();
        assert!(!lives(pid), "{said:?}");
        assert!(service::runs(&service, around).await.unwrap());
        service::stop(&service, around, false).await.unwrap();
    });
}
