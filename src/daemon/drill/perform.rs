//! One drill: a copy of the point, services from it, checks, and nothing left of any of it.
//!
//! Promise: whatever becomes of a step, `stop` is called when `start` was, what the commands left running is ended, and the
//! copy is discarded, in this order. A crash leaves the copy, its mounts, and processes that hold nothing of the daemon;
//! `clear` does the same for them at the next start.
//!
//! It deliberately does not know why the drill takes place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::daemon::api::{DrillReport, DrillStep};
use crate::daemon::load;
use crate::daemon::node::{Node, RoleRun, blocking};
use crate::daemon::play;
use crate::daemon::status::summary;
use crate::error::{Code, Failure};
use crate::host::command::{self, Failed, Group, Order};
use crate::host::drill::DrillResult;
use crate::host::dump::Loaded;
use crate::host::reading::{self, Limits};
use crate::logic::drill::{READ_BYTES_MAX, first_failure};
use crate::logic::manifest::Stored;
use crate::logic::name::DatasetName;
use crate::logic::point::PointName;
use crate::logic::units::{exact_duration, exact_size, human_bytes, human_duration};

/// What `stop` may take when somebody waits for the end of the drill.
const STOP_URGENT: Duration = Duration::from_secs(10);

/// What is kept of a command's last line, in characters, where the whole drill is one line.
const LINE_CHARS_MAX: usize = 200;

/// Where the datasets are shown: beside the control socket.
fn place(node: &Node, run: &RoleRun) -> PathBuf {
    let control = node.config().node.control.clone();
    control.with_file_name("drill").join(&run.name)
}

/// What a drill of the point would do.
pub fn plan(node: &Node, run: &RoleRun, point: &Stored) -> DrillReport {
    let drill = &run.role.drill;
    let at = place(node, run);
    let mut steps = vec![("copy", copy_text(point, &at))];
    let command = |what, argv: &Vec<String>| (what, format!("{what} {}", argv.join(" ")));
    steps.extend(drill.start.iter().map(|argv| command("start", argv)));
    steps.extend(drill.checks.iter().map(|argv| command("check", argv)));
    if drill.checks.is_empty() {
        let time = exact_duration(drill.timeout);
        let bytes = exact_size(READ_BYTES_MAX);
        let text = format!("read every file, for at most {time} and {bytes}");
        steps.push(("read", text));
    }
    steps.extend(drill.stop.iter().map(|argv| command("stop", argv)));
    steps.push(("discard", "discard the copy".to_owned()));
    let step = |(what, text): (&str, String)| DrillStep {
        what: what.to_owned(),
        text,
        ok: None,
        error: None,
        output: String::new(),
        seconds: None,
    };
    DrillReport {
        dry_run: true,
        role: run.name.clone(),
        point: summary(point),
        passed: None,
        steps: steps.into_iter().map(step).collect(),
        seconds: 0.0,
    }
}

fn copy_text(point: &Stored, at: &Path) -> String {
    let manifest = &point.manifest;
    let names: Vec<&str> = manifest.datasets.keys().map(|name| name.as_str()).collect();
    let (names, at) = (names.join(", "), at.display());
    format!(
        "make a throw-away copy of {} ({names}) at {at}",
        manifest.point
    )
}

/// From the copy to its end. An error where it was ended early, or could not even be recorded.
pub async fn whole(
    node: &Arc<Node>,
    run: &Arc<RoleRun>,
    point: &Stored,
    cancel: &CancellationToken,
) -> Result<DrillReport> {
    let began = Instant::now();
    let name = point.manifest.name();
    let id = point.manifest.point.clone();
    node.state
        .record_drill_begun(&run.name, Timestamp::now(), &name)?;
    node.hub
        .note(Some(&run.name), format!("a drill of {id} begins"));
    let mut drill = Drill {
        stage: Stage {
            node: node.clone(),
            run: run.clone(),
            at: place(node, run),
            point: Some(name),
        },
        cancel: cancel.clone(),
        steps: Vec::new(),
        cut: false,
    };
    drill.rehearse(point).await;
    let cut = drill.cut;
    drill.discard().await;
    if cut {
        let text = "the drill was ended early; nothing of it is left";
        node.hub.note(Some(&run.name), text);
        let what = format!("drill role {} to its end: it was told to stop", run.name);
        return Err(Failure::new(Code::Interrupted, what).into());
    }
    let seconds = began.elapsed().as_secs_f64();
    let errors: Vec<Option<String>> = drill.steps.iter().map(in_a_line).collect();
    let over = drill.steps.iter().zip(&errors);
    let failure = first_failure(over.map(|(step, error)| (step.text.as_str(), error.as_deref())));
    let took = human_duration(seconds);
    match &failure {
        None => node.hub.note(
            Some(&run.name),
            format!("the drill of {id} passed, after {took}"),
        ),
        Some(failure) => node.hub.warn(
            Some(&run.name),
            format!("the drill of {id} FAILED: {failure}"),
        ),
    }
    let result = DrillResult {
        ended: Timestamp::now(),
        point: name,
        passed: failure.is_none(),
        seconds,
        failure,
    };
    node.state.record_drill(&run.name, &result)?;
    Ok(DrillReport {
        dry_run: false,
        role: run.name.clone(),
        point: summary(point),
        passed: Some(result.passed),
        steps: drill.steps,
        seconds,
    })
}

/// Why a step failed, with the last line that its command said.
fn in_a_line(step: &DrillStep) -> Option<String> {
    let error = step.error.as_deref()?;
    let error = error.lines().next().unwrap_or_default();
    let said = step
        .output
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    let said = said.map(|line| line.chars().take(LINE_CHARS_MAX).collect::<String>());
    Some(match said {
        Some(said) => format!("{error}; it said: {said}"),
        None => error.to_owned(),
    })
}

/// Where the commands of a drill play.
struct Stage {
    node: Arc<Node>,
    run: Arc<RoleRun>,
    /// STANDIN_DRILL.
    at: PathBuf,
    /// STANDIN_POINT.
    point: Option<PointName>,
}

/// How a command ended: why it failed, if it did, and what it said.
type Ended = (Option<String>, String);

impl Stage {
    fn mark(&self) -> (&'static str, String) {
        ("STANDIN_DRILL", self.at.display().to_string())
    }

    async fn command(&self, argv: &[String], limit: Duration, output: Option<PathBuf>) -> Ended {
        let mut words = vec![self.mark()];
        words.extend(
            self.point
                .iter()
                .map(|point| ("STANDIN_POINT", point.to_string())),
        );
        let order = Order {
            argv,
            moment: "drill",
            limit,
            words,
            output,
        };
        let around = play::around(&self.node, &self.run);
        match command::run(&order, &around).await {
            Ok(said) => (None, said),
            Err(Failed::Status { status, said, .. }) => (Some(status.to_string()), said),
            Err(Failed::TooLong { said, limit, .. }) => {
                let limit = exact_duration(limit);
                (Some(format!("not over within {limit}: it was ended")), said)
            }
            Err(failed) => (Some(format!("could not {failed}")), String::new()),
        }
    }

    /// Ends what the commands left running.
    async fn end_processes(&self) {
        let left = Group {
            session: None,
            mark: Some(self.mark()),
        };
        let survivors = left.end().await;
        if !survivors.is_empty() {
            let text = format!("not even SIGKILL ended what the drill started: {survivors:?}");
            self.node.hub.warn(Some(&self.run.name), text);
        }
    }
}

struct Drill {
    stage: Stage,
    cancel: CancellationToken,
    steps: Vec<DrillStep>,
    /// It was told to end before it had.
    cut: bool,
}

impl Drill {
    async fn rehearse(&mut self, point: &Stored) {
        let config = self.stage.run.role.drill.clone();
        if !self.copy(point).await {
            return;
        }
        let mut started = self.place(point).await;
        if let Some(start) = config.start.as_ref().filter(|_| started) {
            let dir = play::around(&self.stage.node, &self.stage.run).output;
            let log = dir.join(format!("{}+.drill.log", self.stage.run.name));
            started = self
                .command("start", start, config.timeout, Some(log))
                .await;
        }
        if started {
            self.load().await;
            for check in &config.checks {
                self.command("check", check, config.timeout, None).await;
            }
            if config.checks.is_empty() && !self.cut {
                self.read(config.timeout).await;
            }
        }
        if let Some(stop) = &config.stop {
            let limit = match self.cut {
                true => config.timeout.min(STOP_URGENT),
                false => config.timeout,
            };
            let text = format!("stop {}", stop.join(" "));
            self.say(&text);
            let began = Instant::now();
            let ended = self.stage.command(stop, limit, None).await;
            self.ended("stop", text, began, ended);
        }
        self.stage.end_processes().await;
    }

    /// For whoever waits: something begins that may take long.
    fn say(&self, text: &str) {
        let text = format!("drill: {text}");
        self.stage.node.hub.note(Some(&self.stage.run.name), text);
    }

    /// Whether there is a copy.
    async fn copy(&mut self, point: &Stored) -> bool {
        let began = Instant::now();
        let (fs, at) = (self.stage.run.fs.clone(), self.stage.at.clone());
        let id = point.manifest.point.clone();
        let made = blocking(move || {
            for dataset in fs.datasets().keys() {
                if fs.space(dataset)?.room == 0 {
                    bail!(
                        "its filesystem has no room above the reserve, and what is written in a drill takes some"
                    );
                }
            }
            fs.drill(&id, &at)
        })
        .await;
        let error = made.err().map(|error| format!("{error:#}"));
        let whole = error.is_none();
        let text = copy_text(point, &self.stage.at);
        self.ended("copy", text, began, (error, String::new()));
        self.cut |= self.cancel.is_cancelled();
        whole && !self.cut
    }

    fn copies(&self) -> BTreeMap<DatasetName, PathBuf> {
        let names = self.stage.run.fs.datasets().keys();
        names
            .map(|name| (name.clone(), self.stage.at.join(name)))
            .collect()
    }

    /// Whether what the point kept for its databases is in the copy.
    async fn place(&mut self, point: &Stored) -> bool {
        let began = Instant::now();
        let placed = load::place(&self.stage.run, point, &self.copies()).await;
        match placed {
            Ok(said) => {
                for text in said {
                    self.ended("place", text, began, (None, String::new()));
                }
                true
            }
            Err(error) => {
                let text = "prepare the databases of the copy".to_owned();
                self.ended(
                    "place",
                    text,
                    began,
                    (Some(format!("{error:#}")), String::new()),
                );
                false
            }
        }
    }

    /// Dumps into the servers that `start` brought up.
    async fn load(&mut self) {
        let (began, copies) = (Instant::now(), self.copies());
        let loaded = tokio::select! {
            loaded = load::rehearse(&self.stage.node, &self.stage.run, &copies) => loaded,
            () = self.cancel.cancelled() => {
                self.cut = true;
                return;
            }
        };
        for (text, loaded) in loaded {
            let (error, said) = match loaded {
                Ok(Loaded::Nothing) => (None, String::new()),
                Ok(Loaded::Done(what)) => (None, what),
                Ok(Loaded::NotEmpty(what)) => (Some(what), String::new()),
                Err(error) => (Some(format!("could not {error:#}")), String::new()),
            };
            self.ended("load", text, began, (error, said));
        }
    }

    /// Whether it ended well.
    async fn command(
        &mut self,
        what: &str,
        argv: &[String],
        limit: Duration,
        output: Option<PathBuf>,
    ) -> bool {
        if self.cut {
            return false;
        }
        let text = format!("{what} {}", argv.join(" "));
        self.say(&text);
        let began = Instant::now();
        let ended = tokio::select! {
            ended = self.stage.command(argv, limit, output) => ended,
            () = self.cancel.cancelled() => {
                self.cut = true;
                self.stage.end_processes().await;
                return false;
            }
        };
        let good = ended.0.is_none();
        self.ended(what, text, began, ended);
        good
    }

    /// Reads every file, where nobody said what else to look at.
    async fn read(&mut self, time: Duration) {
        self.say("read every file");
        let began = Instant::now();
        let limits = Limits {
            bytes: READ_BYTES_MAX,
            time,
        };
        let (at, cancel) = (self.stage.at.clone(), self.cancel.clone());
        let read =
            blocking(move || reading::every_file(&at, limits, &|| cancel.is_cancelled())).await;
        self.cut |= self.cancel.is_cancelled();
        let (text, error) = match read {
            Ok(read) => {
                let (files, bytes) = (read.files, human_bytes(read.bytes));
                let text = match read.cut {
                    false => format!("read every file: {files} files, {bytes}"),
                    true => format!(
                        "read {files} files, {bytes}; the limit ({}, {}) came before the end",
                        exact_duration(time),
                        exact_size(READ_BYTES_MAX)
                    ),
                };
                (text, None)
            }
            Err(error) => ("read every file".to_owned(), Some(format!("{error:#}"))),
        };
        self.ended("read", text, began, (error, String::new()));
    }

    async fn discard(&mut self) {
        let began = Instant::now();
        let fs = self.stage.run.fs.clone();
        let gone = blocking(move || fs.end_drill()).await;
        let error = gone.err().map(|error| format!("{error:#}"));
        if let (true, Some(error)) = (self.cut, &error) {
            let text = format!("could not discard the copy of the drill: {error}");
            self.stage.node.hub.warn(Some(&self.stage.run.name), text);
        }
        let text = "discard the copy".to_owned();
        self.ended("discard", text, began, (error, String::new()));
    }

    fn ended(&mut self, what: &str, text: String, began: Instant, (error, output): Ended) {
        let seconds = began.elapsed().as_secs_f64();
        let word = if error.is_none() { "ok" } else { "FAILED" };
        tracing::info!(role = self.stage.run.name.as_str(), "drill: {word}: {text}");
        self.steps.push(DrillStep {
            what: what.to_owned(),
            text,
            ok: Some(error.is_none()),
            error,
            output,
            seconds: Some(seconds),
        });
    }
}

/// Takes away what a drill of an earlier daemon left.
pub async fn clear(node: &Arc<Node>, run: &Arc<RoleRun>) {
    let fs = run.fs.clone();
    // A filesystem that cannot be looked at was told of already, and has nothing mounted.
    let shown = blocking(move || fs.drill_mounts())
        .await
        .unwrap_or_default();
    // Nothing is mounted after a reboot, and nothing runs.
    if let Some(at) = shown.first().and_then(|mount| mount.parent()) {
        stop_left(node, run, at).await;
    }
    let fs = run.fs.clone();
    match blocking(move || fs.end_drill()).await {
        Ok(true) => node.hub.note(
            Some(&run.name),
            "cleared away what an interrupted drill had left",
        ),
        Ok(false) => {}
        Err(error) => tracing::warn!(
            role = run.name.as_str(),
            "could not clear away what a drill left: {error:#}"
        ),
    }
}

/// Stops what a drill started whose copy is shown at `at`. The table of mounts knows no links: the way there, which its
/// commands were told, may have been another one.
async fn stop_left(node: &Arc<Node>, run: &Arc<RoleRun>, at: &Path) {
    let begun = node.state.drill(&run.name).unwrap_or_default().begun;
    let here = place(node, run);
    let same = here.canonicalize().is_ok_and(|here| here == at);
    let mut stage = Stage {
        node: node.clone(),
        run: run.clone(),
        at: if same { here } else { at.to_owned() },
        point: begun.map(|(_, point)| point),
    };
    let drill = &run.role.drill;
    if let Some(stop) = &drill.stop {
        let limit = drill.timeout.min(STOP_URGENT);
        if let (Some(error), said) = stage.command(stop, limit, None).await {
            let stop = stop.join(" ");
            let text = format!(
                "could not stop what an interrupted drill started ({stop}): {error} {said}"
            );
            node.hub.warn(Some(&run.name), text);
        }
    }
    stage.end_processes().await;
    if stage.at != at {
        stage.at = at.to_owned();
        stage.end_processes().await;
    }
}
