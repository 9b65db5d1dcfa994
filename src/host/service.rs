//! Services of a role: started, stopped and asked, each answer verified.
//!
//! Promise: `start` that ends well means the service runs, `stop` that ends well means that nothing of it does: a unit has no
//! process left in its control group, a command's health fails and nothing of what its start left behind is there. Both may be
//! called again at any time. A crash leaves services as they are: they belong to systemd, or run in sessions of their own.
//!
//! It deliberately does not know the order of services, nor what a failed one means for the role.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::command::{self, Failed, Group, Order, Surroundings};
use super::systemd;
use crate::error::{Code, Failure};
use crate::logic::play::{CommandService, Service};
use crate::logic::units::exact_duration;

/// Pause before health is asked again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// What the stop of a service may take when it is urgent; after that it is killed.
pub const URGENT: Duration = Duration::from_secs(5);

/// The word by which everything that a start left behind is found again, in the environment.
const MARK: &str = "STANDIN_SERVICE";

/// The word by which a stop is found again that nobody waits for any more: the daemon was killed, or changed its mind.
const STOPPING: &str = "STANDIN_STOPPING";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// A sentence for the event history.
    pub sentence: String,
    /// The end of what the commands said; mostly empty.
    pub output: String,
}

/// Whether the service runs.
pub async fn runs(service: &Service, around: &Surroundings) -> Result<bool> {
    match service {
        Service::Unit(unit) => Ok(systemd::show(unit).await?.runs()),
        Service::Command(service) => {
            command::said_in(&output_of(service, around));
            let health = examine(service, around, service.timeout).await?;
            Ok(matches!(health, Health::Runs))
        }
    }
}

/// Starts the service unless it runs, and waits until it does.
pub async fn start(service: &Service, around: &Surroundings) -> Result<Said> {
    let began = Instant::now();
    if let Service::Command(service) = service {
        let begun = begun_stop(service, around).await;
        begun.with_context(|| format!("start service {}", service.name))?;
    }
    if runs(service, around).await? {
        return Ok(Said {
            sentence: format!("service {} runs already", service.name()),
            output: String::new(),
        });
    }
    let output = match service {
        Service::Unit(unit) => systemd::start(unit).await,
        Service::Command(service) => start_command(service, around).await,
    };
    let output = output.with_context(|| format!("start service {}", service.name()))?;
    let took = exact_duration(whole_ms(began));
    Ok(Said {
        sentence: format!("service {} runs, after {took}", service.name()),
        output,
    })
}

/// Stops the service, and proves that nothing of it runs. Where that is `urgent`, what does not stop at once is killed.
pub async fn stop(service: &Service, around: &Surroundings, urgent: bool) -> Result<Said> {
    let began = Instant::now();
    let stopped = match service {
        Service::Unit(unit) => systemd::stop(unit, urgent.then_some(URGENT)).await,
        Service::Command(service) => stop_command(service, around, urgent).await,
    };
    let output = stopped.with_context(|| format!("stop service {}", service.name()))?;
    let took = exact_duration(whole_ms(began));
    Ok(Said {
        sentence: format!("service {} is stopped, after {took}", service.name()),
        output,
    })
}

fn whole_ms(began: Instant) -> Duration {
    Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Where the output of a service goes that keeps it open.
fn output_of(service: &CommandService, around: &Surroundings) -> PathBuf {
    let (role, name) = (&around.role, &service.name);
    around.output.join(format!("{role}+{name}.log"))
}

/// Names the service of this daemon and of no other on the machine, whatever the nodes are called.
fn words_of(service: &CommandService, around: &Surroundings) -> String {
    let (node, role, name) = (&around.node, &around.role, &service.name);
    format!("{node}/{role}/{name} {}", around.output.display())
}

fn mark_of(service: &CommandService, around: &Surroundings) -> (&'static str, String) {
    (MARK, words_of(service, around))
}

/// Waits for the end of a stop that was begun before. Until then health may say that the service runs, and a moment later it
/// is gone.
async fn begun_stop(service: &CommandService, around: &Surroundings) -> Result<()> {
    let stop = Group {
        session: None,
        mark: Some((STOPPING, words_of(service, around))),
    };
    let end = Instant::now() + service.timeout;
    let mut pause = PAUSE_FIRST;
    while !stop.members().await.is_empty() {
        if Instant::now() >= end {
            let survivors = stop.end().await;
            if !survivors.is_empty() {
                bail!("end a stop that hangs: not even SIGKILL ended pid {survivors:?}");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
    Ok(())
}

/// What a health said.
enum Health {
    Runs,
    /// It ended, and badly: the service does not run.
    Fails(Failed),
    /// It hangs: nobody knows.
    Hangs(Failed),
}

/// Asks health once. One that cannot be asked at all is an error.
async fn examine(
    service: &CommandService,
    around: &Surroundings,
    limit: Duration,
) -> Result<Health> {
    let order = Order {
        argv: &service.health,
        moment: "health",
        limit,
        words: Vec::new(),
        output: None,
    };
    match command::run(&order, around).await {
        Ok(_) => Ok(Health::Runs),
        Err(failed @ Failed::NotStarted { .. }) => {
            Err(failed).with_context(|| format!("ask service {} how it is", service.name))
        }
        Err(failed @ Failed::Status { .. }) => Ok(Health::Fails(failed)),
        Err(failed @ Failed::TooLong { .. }) => Ok(Health::Hangs(failed)),
    }
}

/// Whether it may run: what is not known to have stopped has not.
async fn may_run(service: &CommandService, around: &Surroundings, limit: Duration) -> Result<bool> {
    Ok(!matches!(
        examine(service, around, limit).await?,
        Health::Fails(_)
    ))
}

async fn start_command(service: &CommandService, around: &Surroundings) -> Result<String> {
    let end = Instant::now() + service.timeout;
    let output = output_of(service, around);
    let order = Order {
        argv: &service.start,
        moment: "start",
        limit: service.timeout,
        words: vec![mark_of(service, around)],
        output: Some(output.clone()),
    };
    let said = command::run(&order, around).await?;
    let mut pause = PAUSE_FIRST;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let answer = match examine(service, around, rest.max(PAUSE_MOST)).await? {
            Health::Runs => return Ok(said),
            Health::Fails(failed) | Health::Hangs(failed) => failed,
        };
        if rest.is_zero() {
            let limit = exact_duration(service.timeout);
            let said = command::said_in(&output);
            let said = match said.is_empty() {
                true => "it said nothing".to_owned(),
                false => format!("the end of what it said:\n  {}", last_lines(&said)),
            };
            bail!("see it healthy within {limit}: {said}\nits health last: could not {answer}");
        }
        tokio::time::sleep(pause.min(rest)).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n  ")
}

async fn stop_command(
    service: &CommandService,
    around: &Surroundings,
    urgent: bool,
) -> Result<String> {
    let limit = match urgent {
        true => service.timeout.min(URGENT),
        false => service.timeout,
    };
    let end = Instant::now() + limit;
    let order = Order {
        argv: &service.stop,
        moment: "stop",
        limit,
        words: vec![(STOPPING, words_of(service, around))],
        output: None,
    };
    let stopped = command::run(&order, around).await;
    let group = Group {
        session: None,
        mark: Some(mark_of(service, around)),
    };
    let mut pause = PAUSE_FIRST;
    let healthy = loop {
        let rest = end.saturating_duration_since(Instant::now());
        // Its health is asked also when the limit is over: a stop that took all of it may have worked.
        let healthy = may_run(service, around, rest.max(PAUSE_MOST)).await?;
        let over = rest.is_zero();
        if over || (!healthy && group.members().await.is_empty()) {
            break healthy;
        }
        tokio::time::sleep(pause.min(rest)).await;
        pause = (pause * 2).min(PAUSE_MOST);
    };
    let left = group.members().await;
    let mut words = Vec::new();
    if !left.is_empty() {
        let survivors = group.end().await;
        if !survivors.is_empty() {
            bail!("end what it left running: not even SIGKILL ended pid {survivors:?}");
        }
        words.push(format!(
            "{} processes it left running were killed",
            left.len()
        ));
    }
    if (healthy || !left.is_empty()) && may_run(service, around, PAUSE_MOST).await? {
        let why = match &stopped {
            Ok(_) => "its stop command ended well".to_owned(),
            Err(failed) => format!("could not {failed}"),
        };
        let what = format!("see it gone: its health does not say that it has ended; {why}");
        let hint = "stop it by hand; a health that succeeds without the service needs mending";
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    // It is gone: a stop that failed because there was nothing to stop is no failure.
    words.push(match stopped {
        Ok(said) => said,
        Err(failed) => format!("could not {failed}"),
    });
    Ok(words.join("\n").trim().to_owned())
}
