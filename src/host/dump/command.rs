//! Dumps by commands of the admin's own: `dump`, or `freeze` and `thaw` around the snapshots.
//!
//! Promise: `thaw` runs whenever `freeze` was begun, also where that failed or was cut short. What holds writers still is not
//! ours: when the daemon is killed in between, whoever reads its notes must run `thaw` (see `thaw`).
//!
//! It deliberately does not know what the commands do.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Around, Loaded};
use crate::host::command::{self, Order, Surroundings};
use crate::logic::dump::{Commands, Dump, Found};

/// One run of the commands.
pub struct Open {
    commands: Commands,
    limit: Duration,
    hold: Duration,
    around: Surroundings,
    frozen: bool,
}

impl Open {
    pub fn new(commands: &Commands, dump: &Dump, around: &Around) -> Open {
        Open {
            commands: commands.clone(),
            limit: dump.timeout,
            hold: dump.hold,
            around: around.surroundings.clone(),
            frozen: false,
        }
    }

    pub fn holds(&self) -> bool {
        self.commands.freeze.is_some()
    }

    pub async fn prepare(&mut self) -> Result<()> {
        match &self.commands.dump {
            Some(argv) => run(argv, "dump", self.limit, &self.around)
                .await
                .map(|_| ()),
            None => Ok(()),
        }
    }

    pub async fn hold(&mut self) -> Result<()> {
        let Some(argv) = &self.commands.freeze else {
            return Ok(());
        };
        self.frozen = true;
        run(argv, "freeze", self.hold, &self.around)
            .await
            .map(|_| ())
    }

    pub async fn release(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.frozen) {
            return Ok(());
        }
        thaw(&self.commands, self.limit, &self.around).await
    }

    pub async fn finish(&mut self) -> Result<Found> {
        Ok(Found::default())
    }
}

/// Lets writers go; also for a daemon that finds that an earlier one was killed while they were held.
pub async fn thaw(commands: &Commands, limit: Duration, around: &Surroundings) -> Result<()> {
    match &commands.thaw {
        Some(argv) => run(argv, "thaw", limit, around).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Runs `load`, which finds the dump in the role's live data by itself.
pub async fn load(commands: &Commands, dump: &Dump, around: &Around) -> Result<Loaded> {
    let Some(argv) = &commands.load else {
        return Ok(Loaded::Nothing);
    };
    let said = run(argv, "load", dump.timeout, &around.surroundings).await?;
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

async fn run(
    argv: &[String],
    moment: &str,
    limit: Duration,
    around: &Surroundings,
) -> Result<String> {
    let order = Order {
        argv,
        moment,
        limit,
        words: Vec::new(),
        output: None,
    };
    command::run(&order, around)
        .await
        .with_context(|| format!("{moment} by a command"))
}
