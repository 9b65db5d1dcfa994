//! Dumps by commands of the admin's own: `dump`, or `freeze` and `thaw` around the snapshots.
//!
//! Promise: `thaw` runs whenever `freeze` was begun, also where that failed or was cut short. What holds writers still is not
//! ours: when the daemon is killed in between, whoever reads its notes must run `thaw` (see `thaw`).
//! A command that is not waited for any more is ended with all that it started, and `thaw` runs only after that: a `freeze`
//! that goes on would hold writers after they were let go.
//!
//! It deliberately does not know what the commands do.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Around, Loaded};
use crate::host::command::{self, Group, Order, Surroundings};
use crate::host::random;
use crate::logic::dump::{Commands, Dump, Found};

/// One run of the commands.
pub struct Open {
    commands: Commands,
    limit: Duration,
    hold: Duration,
    around: Surroundings,
    frozen: bool,
    running: Running,
}

/// In the environment of a command and of what it starts, with a number of that run.
const MARK: &str = "STANDIN_DUMP_RUN";

impl Open {
    pub fn new(commands: &Commands, dump: &Dump, around: &Around) -> Open {
        Open {
            commands: commands.clone(),
            limit: dump.timeout,
            hold: dump.hold,
            around: around.surroundings.clone(),
            frozen: false,
            running: Running::default(),
        }
    }

    pub fn holds(&self) -> bool {
        self.commands.freeze.is_some()
    }

    pub async fn prepare(&mut self) -> Result<()> {
        let Some(argv) = &self.commands.dump else {
            return Ok(());
        };
        let done = self.running.run(argv, "dump", self.limit, &self.around);
        done.await.map(drop)
    }

    pub async fn hold(&mut self) -> Result<()> {
        let Some(argv) = &self.commands.freeze else {
            return Ok(());
        };
        self.frozen = true;
        let done = self.running.run(argv, "freeze", self.hold, &self.around);
        done.await.map(drop)
    }

    pub async fn release(&mut self) -> Result<()> {
        let ended = self.running.end().await;
        if !std::mem::take(&mut self.frozen) {
            return ended;
        }
        // Also after a freeze that nothing ends: it is the best that can be done.
        thaw(&self.commands, self.limit, &self.around).await?;
        ended
    }

    pub async fn finish(&mut self) -> Result<Found> {
        self.running.end().await?;
        Ok(Found::default())
    }
}

/// The command that runs now, if any. Dropped while it runs: the command is ended in the background.
#[derive(Default)]
struct Running(Option<Group>);

impl Running {
    /// Runs a command to its end; what it said. Where this is dropped, it goes on until `end`.
    async fn run(
        &mut self,
        argv: &[String],
        moment: &str,
        limit: Duration,
        around: &Surroundings,
    ) -> Result<String> {
        let word = format!("{:016x}", random::number()?);
        self.0 = Some(Group {
            session: None,
            mark: Some((MARK, word.clone())),
        });
        let order = Order {
            argv,
            moment,
            limit,
            words: vec![(MARK, word)],
            output: None,
        };
        let done = command::run(&order, around).await;
        self.0 = None;
        done.with_context(|| format!("{moment} by a command"))
    }

    /// Ends what was not waited for.
    async fn end(&mut self) -> Result<()> {
        let Some(group) = self.0.clone() else {
            return Ok(());
        };
        let left = group.end().await;
        self.0 = None;
        if left.is_empty() {
            return Ok(());
        }
        let pids: Vec<String> = left.iter().map(ToString::to_string).collect();
        bail!(
            "end a command: not even SIGKILL ended pid {}",
            pids.join(", ")
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(group), Ok(runtime)) = (self.0.take(), runtime) {
            runtime.spawn(async move { group.end().await });
        }
    }
}

/// Lets writers go; also for a daemon that finds that an earlier one was killed while they were held.
pub async fn thaw(commands: &Commands, limit: Duration, around: &Surroundings) -> Result<()> {
    match &commands.thaw {
        Some(argv) => {
            let mut running = Running::default();
            running.run(argv, "thaw", limit, around).await.map(drop)
        }
        None => Ok(()),
    }
}

/// Runs `load`, which finds the dump in the role's live data by itself.
pub async fn load(commands: &Commands, dump: &Dump, around: &Around) -> Result<Loaded> {
    let Some(argv) = &commands.load else {
        return Ok(Loaded::Nothing);
    };
    let mut running = Running::default();
    let done = running.run(argv, "load", dump.timeout, &around.surroundings);
    let said = done.await?;
    let last = said.lines().last().unwrap_or("it said nothing");
    Ok(Loaded::Done(format!("{} ran: {last}", argv[0])))
}

pub fn check(commands: &Commands) -> Result<String> {
    let all = [
        &commands.dump,
        &commands.freeze,
        &commands.thaw,
        &commands.load,
    ];
    for argv in all.into_iter().flatten() {
        if command::find(&argv[0]).is_none() {
            bail!("find a program {} that can be executed", argv[0]);
        }
    }
    Ok("its commands are there".to_owned())
}
