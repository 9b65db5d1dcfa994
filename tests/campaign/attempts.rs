//! The attempts of transfers as the receiver's log tells them, and how much of a stream was received twice.
//!
//! A stream is received twice from where the next attempt begins to where the last one had applied it, to whole commands;
//! bytes that were on their way and never reached the applier do not count. After an orderly end (a link that went away, a
//! stop by signal) that is nothing; after a kill it is less than the distance of two checkpoints.

/// The end command of a stream (ten bytes) takes no checkpoint of its own.
const END_COMMAND: u64 = 10;

/// The most of a stream that a receiver has taken and not applied: four pieces of 64 KiB and the one that it holds.
const ON_THE_WAY: u64 = 5 * (64 << 10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `files of 1.2`.
    pub what: String,
    /// Where it began, in bytes of the stream.
    pub from: u64,
    /// Applied up to here.
    pub until: u64,
    /// It ended in order: everything applied is in a checkpoint.
    kept: bool,
    /// The receiver was killed after it began.
    killed: bool,
    /// No other link came up after it began.
    pub on_newest_link: bool,
}

#[derive(Debug, Default)]
pub struct Attempts {
    list: Vec<Attempt>,
    /// Links that came up.
    pub links: usize,
    /// Bytes received again after kills.
    pub again: u64,
}

impl Attempts {
    pub fn last(&self, what: &str) -> Option<&Attempt> {
        self.list.iter().rev().find(|attempt| attempt.what == what)
    }

    /// Bytes applied in all attempts.
    pub fn applied(&self) -> u64 {
        let bytes = self.list.iter().map(|attempt| attempt.until - attempt.from);
        bytes.sum()
    }

    /// Bytes applied of other points on the newest link.
    pub fn other_than(&self, point: &str) -> u64 {
        let other = |attempt: &&Attempt| !attempt.what.ends_with(&format!(" of {point}"));
        let others = self.list.iter().filter(|attempt| attempt.on_newest_link);
        others
            .filter(other)
            .map(|attempt| attempt.until - attempt.from)
            .sum()
    }
}

/// Reads a log and checks each attempt against the one before it. `interval`: bytes between two checkpoints.
pub fn read(log: &str, interval: u64) -> Result<Attempts, String> {
    let mut found = Attempts::default();
    let mut stopping = false;
    for line in log.lines() {
        if line.contains(" stopping: transfers end") {
            stopping = true;
        } else if line.contains(" frozen ") {
            // Killed before it could end in order.
            stopping = false;
        } else if line.contains(" serves as birch") {
            if !std::mem::take(&mut stopping) {
                found
                    .list
                    .iter_mut()
                    .for_each(|attempt| attempt.killed = true);
            }
        } else if line.contains(" link to alder is up") {
            found.links += 1;
            found
                .list
                .iter_mut()
                .for_each(|attempt| attempt.on_newest_link = false);
        } else if let Some(rest) = after(line, " receiving ") {
            let Some((what, from)) = rest.split_once(" from byte ") else {
                continue;
            };
            let from = number(from);
            if let Some(before) = found.last(what) {
                let again = sent_twice(before, from, interval)?;
                found.again += again;
            }
            found.list.push(Attempt {
                what: what.to_owned(),
                from,
                until: from,
                kept: false,
                killed: false,
                on_newest_link: true,
            });
        } else if let Some(rest) = after(line, " applied ") {
            let Some((what, rest)) = rest.split_once(" to byte ") else {
                continue;
            };
            let (until, safe) = rest.split_once(", safe to ").unwrap_or((rest, "0"));
            let (until, safe) = (number(until), number(safe));
            if until > safe + interval + END_COMMAND {
                return Err(format!("no checkpoint came in time: {line}"));
            }
            let attempt = found
                .list
                .iter_mut()
                .rev()
                .find(|attempt| attempt.what == what);
            attempt
                .ok_or_else(|| format!("applied, but not begun: {line}"))?
                .until = until;
        } else if let Some(rest) = after(line, ": receive ") {
            let Some((what, at)) = rest.split_once(": interrupted at byte ") else {
                continue;
            };
            let attempt = found
                .list
                .iter_mut()
                .rev()
                .find(|attempt| attempt.what == what);
            let attempt = attempt.ok_or_else(|| format!("interrupted, but not begun: {line}"))?;
            attempt.kept = true;
            // What was told of is applied for sure, and what is on its way to the applier is applied before the end.
            let at = number(at);
            if at < attempt.until || at > attempt.until + ON_THE_WAY {
                return Err(format!("{} applied, but: {line}", attempt.until));
            }
            attempt.until = at;
        }
    }
    Ok(found)
}

/// Bytes of the stream received a second time.
fn sent_twice(before: &Attempt, from: u64, interval: u64) -> Result<u64, String> {
    let again = before.until.saturating_sub(from);
    let allowed = match (before.kept, before.killed) {
        (true, _) => 0,
        (false, true) => interval + END_COMMAND,
        // Nothing was applied, so nothing had to be kept.
        (false, false) if before.until == before.from => 0,
        (false, false) => return Err(format!("{before:?} ended in order, without a checkpoint")),
    };
    // More than was applied: a frame that was not told of any more reached a checkpoint.
    if again > allowed || (before.kept && from != before.until) {
        return Err(format!(
            "{before:?} goes on at byte {from}: {again} bytes are sent twice, {allowed} are allowed"
        ));
    }
    Ok(again)
}

/// A test of its own: logs, and what is made of them.
pub fn tested() -> Result<(), String> {
    const BEGUN: &str = "x DEBUG receiving files of 1.2 from byte 0\n";
    const APPLIED: &str = "x TRACE applied files of 1.2 to byte 900, safe to 800\n";
    const KEPT: &str = "x WARN could not take files of web 1.2 for alder: receive files of 1.2: interrupted at byte 900 of its stream, checkpoint kept\n";
    const STOPPED: &str = "x INFO stopping: transfers end at a checkpoint\n";
    const STARTED: &str = "x INFO standin 1 serves as birch, key k\n";
    let check = |log: &[&str], from: u64, again: Option<u64>| {
        let log = format!(
            "{}x DEBUG receiving files of 1.2 from byte {from}\n",
            log.concat()
        );
        let found = read(&log, 100);
        match found.as_ref().ok().map(|found| found.again) == again {
            true => Ok(()),
            false => Err(format!("{log}{found:?}, not {again:?}")),
        }
    };
    // Killed: up to the distance of two checkpoints, and the end command.
    check(&[BEGUN, APPLIED, STARTED], 800, Some(100))?;
    check(&[BEGUN, APPLIED, STARTED], 790, Some(110))?;
    check(&[BEGUN, APPLIED, STARTED], 789, None)?;
    check(&[BEGUN, APPLIED, STARTED], 1000, Some(0))?;
    // Ended in order: nothing.
    check(&[BEGUN, APPLIED, KEPT], 900, Some(0))?;
    check(&[BEGUN, APPLIED, KEPT], 899, None)?;
    check(&[BEGUN, APPLIED, KEPT, STARTED], 899, None)?;
    check(&[BEGUN, APPLIED], 900, None)?;
    check(&[BEGUN, APPLIED, STOPPED, STARTED], 800, None)?;
    check(&[BEGUN], 0, Some(0))?;
    // The log contradicts itself, or no checkpoint came.
    check(
        &[BEGUN, "x applied files of 1.2 to byte 911, safe to 800\n"],
        911,
        None,
    )?;
    check(&[APPLIED], 900, None)?;
    // What was on its way to the applier is applied as well, but no more than that; and nothing is taken back.
    let kept_at = |at: u64| KEPT.replace("900", &at.to_string());
    let most = 900 + ON_THE_WAY;
    check(&[BEGUN, APPLIED, &kept_at(905)], 905, Some(0))?;
    check(&[BEGUN, APPLIED, &kept_at(most)], most, Some(0))?;
    check(&[BEGUN, APPLIED, &kept_at(most + 1)], most + 1, None)?;
    check(&[BEGUN, APPLIED, &kept_at(899)], 899, None)
}

fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.split_once(word).map(|(_, rest)| rest)
}

fn number(text: &str) -> u64 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
