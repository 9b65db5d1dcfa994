//! Whether what the daemons said was true, by what the wire saw.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Plan;
use super::line::{Sample, Told, linked};

/// A link of which nothing arrives is down within this time: the stated silence of 20 s, its watchdog's 5 s, and a moment.
const SILENCE: Duration = Duration::from_millis(26_500);

/// The side that still hears is told, or learns from its own unconfirmed bytes (30 s), within this time.
const DEAF: Duration = Duration::from_millis(36_500);

/// A line that is good again carries a link within this time after a cut of the same length or shorter.
const BACK_UP: Duration = Duration::from_secs(30);

/// Cuts up to this length end no link: the silence limit leaves TCP time to try again ...
const HARMLESS: Duration = Duration::from_secs(5);

/// ... where they are so far apart. Closer ones can swallow every try of a busy connection, whose pauses double (1, 2, 4, 8,
/// 16 s): seen about once in five cases with cuts every 4 s. The link comes back, and the transfer goes on.
const APART: Duration = Duration::from_secs(10);

/// What the sender's wire figure may count that still waits in its machine: the kernel's 128 KiB, a frame, buffers.
const AHEAD: u64 = 512 * 1024;

/// What is on its way at a cut, in bytes: twice the line's own 75 kB (bbr), and the next try.
const CUT_LOSES: f64 = 160.0 * 1024.0;

/// Guesses of the time left are of use within this factor, in the middle of them: nobody foresees cuts.
const GUESS: f64 = 8.0;

/// A line that carries this much of its rate in a second has not been overtaken by rounding.
const RATE_SLACK: f64 = 1.25;

/// Judges all; gives a sentence of figures.
pub fn judge(told: &Told, plan: &Plan) -> Result<String, String> {
    silence_is_noticed(told)?;
    nothing_is_killed_in_vain(told, plan)?;
    links_come_back(told)?;
    in_sync_only_when_stored(told)?;
    let figures = transfers(told, plan)?;
    let most = most_cost(told, plan);
    if told.cost() > most {
        return Err(format!(
            "{:.2} bytes were sent for each of the files', at most {most:.2} are due",
            told.cost()
        ));
    }
    Ok(figures)
}

fn at(told: &Told, sample: &Sample) -> String {
    let name = ["alder", "birch"][sample.end];
    let when = (sample.told - told.begun).as_secs_f64();
    format!("{name} at {when:.1} s")
}

fn of_end(told: &Told, end: usize) -> impl Iterator<Item = &Sample> {
    told.samples.iter().filter(move |sample| sample.end == end)
}

/// While nothing arrives, a node must not claim a link for longer than the stated limit.
fn silence_is_noticed(told: &Told) -> Result<(), String> {
    for (way, hearer) in [(0, 1), (1, 0)] {
        let mut last = (told.seen.0[way].arrived, told.begun);
        for sample in &told.samples {
            let arrived = sample.seen[way].arrived;
            if arrived != last.0 {
                last = (arrived, sample.told);
            }
            let silent = sample.asked.saturating_duration_since(last.1);
            let limit = if sample.end == hearer { SILENCE } else { DEAF };
            if silent > limit && linked(&sample.status) {
                let seconds = silent.as_secs_f64();
                let what = format!("linked, though nothing arrived one way for {seconds:.1} s");
                return Err(format!("{}: {what}", at(told, sample)));
            }
        }
    }
    Ok(())
}

fn longest_cut(plan: &Plan, told: &Told) -> Duration {
    if told.cuts.is_empty() {
        Duration::ZERO
    } else {
        plan.cuts.long
    }
}

fn nothing_is_killed_in_vain(told: &Told, plan: &Plan) -> Result<(), String> {
    let harmless = longest_cut(plan, told) <= HARMLESS && plan.cuts.every >= APART;
    if told.losses() > 0 && harmless {
        let down = told.samples.iter().find(|sample| !linked(&sample.status));
        let (place, why) = match down {
            Some(down) => (
                at(told, down),
                down.status["peers"][0]["last_error"].to_string(),
            ),
            None => (String::new(), String::new()),
        };
        return Err(format!(
            "{place}: a link was lost though cuts were short: {why}"
        ));
    }
    Ok(())
}

fn links_come_back(told: &Told) -> Result<(), String> {
    for sample in &told.samples {
        let cut_at = |moment: Instant| {
            let over = |to: Option<Instant>| to.is_none_or(|to| moment < to);
            told.cuts
                .iter()
                .find(|cut| cut.from <= moment && over(cut.to))
        };
        // Good all the time before this sample, for as long as coming back may take.
        let long = told.cuts.iter().filter_map(|cut| Some(cut.to? - cut.from));
        let due = BACK_UP + long.max().unwrap_or_default();
        let Some(since) = sample.asked.checked_sub(due) else {
            continue;
        };
        let begins = told
            .cuts
            .iter()
            .any(|cut| cut.from > since && cut.from < sample.told);
        let good = since > told.begun && cut_at(since).is_none() && !begins;
        if good && !linked(&sample.status) {
            let seconds = due.as_secs();
            let why = &sample.status["peers"][0]["last_error"];
            return Err(format!(
                "{}: no link, though the line was good for {seconds} s: {why}",
                at(told, sample)
            ));
        }
    }
    Ok(())
}

/// Until the point is on the other disk, nobody says that it is.
fn in_sync_only_when_stored(told: &Told) -> Result<(), String> {
    for sample in of_end(told, 0) {
        let role = &sample.status["roles"][0];
        let taken = role["newest"]["short"] == told.point.as_str();
        if !taken || sample.stored {
            continue;
        }
        let replica = &role["replicas"][0];
        let in_sync = replica["behind"] == 0
            || replica["newest"]["short"] == told.point.as_str()
            || replica["exposure_s"].as_f64().is_none_or(|s| s <= 0.0);
        if in_sync {
            let what = "in sync, though the point was not stored";
            return Err(format!("{}: {what}: {replica}", at(told, sample)));
        }
        let age = age_of(&sample.status, &replica["newest"]["taken"]);
        let exposure = replica["exposure_s"].as_f64().unwrap_or_default();
        if replica["newest"]["short"] != told.base.as_str() || (exposure - age).abs() > 1.0 {
            let what = format!("the base is {age:.1} s old");
            return Err(format!("{}: {what}: {replica}", at(told, sample)));
        }
    }
    Ok(())
}

/// Seconds from a moment to the daemon's own now.
fn age_of(status: &Value, moment: &Value) -> f64 {
    let time = |value: &Value| -> jiff::Timestamp { value.as_str().unwrap().parse().unwrap() };
    let (now, then) = (time(&status["now"]), time(moment));
    (now.as_millisecond() - then.as_millisecond()) as f64 / 1000.0
}

/// What a transfer said at its last look.
#[derive(Clone, Copy, Default)]
struct Last {
    done: u64,
    wire: u64,
}

/// Figures of every attempt: never falling, never above the truth, and of use to somebody who waits.
fn transfers(told: &Told, plan: &Plan) -> Result<String, String> {
    let mut last: BTreeMap<(usize, u64), Last> = BTreeMap::new();
    let mut guesses = Vec::new();
    let mut ahead = 0;
    let end = told.begun + told.took;
    for sample in &told.samples {
        for view in sample.status["transfers"].as_array().unwrap() {
            let wrong = |what: &str| Err(format!("{}: {what}: {view}", at(told, sample)));
            let number = |key: &str| view[key].as_u64().unwrap();
            let (done, wire, total) = (
                number("done_bytes"),
                number("wire_bytes"),
                number("total_bytes"),
            );
            let before = last.entry((sample.end, number("id"))).or_default();
            if done < before.done || wire < before.wire {
                return wrong("figures went back");
            }
            *before = Last { done, wire };
            if total != told.bytes as u64 || done > total {
                return wrong("more is done than there is");
            }
            // The data do not pack: what is done has arrived.
            let arrived = sample.seen[0].arrived - told.seen.0[0].arrived;
            if done > arrived {
                return wrong(&format!("only {arrived} bytes arrived"));
            }
            let sent = match sample.end {
                0 => sample.seen[0].sent - told.seen.0[0].sent,
                _ => arrived,
            };
            ahead = ahead.max(wire.saturating_sub(sent));
            if ahead > AHEAD {
                return wrong(&format!("only {sent} bytes were sent"));
            }
            let rate = view["rate"].as_f64().unwrap();
            let most = plan.there.rate as f64 / 8.0 * RATE_SLACK;
            if !(0.0..=most).contains(&rate) {
                return wrong("no such rate");
            }
            if let Some(eta) = view["eta_s"].as_f64() {
                if eta < 0.0 || !eta.is_finite() {
                    return wrong("no such time");
                }
                let left = end.saturating_duration_since(sample.told).as_secs_f64();
                if left > 5.0 && done > total / 4 {
                    guesses.push(eta / left);
                }
            }
        }
    }
    if !last.keys().any(|(end, _)| *end == 0) || !last.keys().any(|(end, _)| *end == 1) {
        return Err("no transfer was seen running".to_owned());
    }
    guesses.sort_by(f64::total_cmp);
    let middle = guesses.get(guesses.len() / 2).copied();
    if middle.is_some_and(|middle| !(1.0 / GUESS..=GUESS).contains(&middle)) {
        return Err(format!("guesses of the time left are off by {middle:?}"));
    }
    Ok(format!(
        "{} attempts seen, wire figure ahead by {} KiB, median guess of the time left {:.2} of the true one ({} guesses)",
        last.len(),
        ahead / 1024,
        middle.unwrap_or(f64::NAN),
        guesses.len()
    ))
}

/// Bytes on the line that each byte of the files may cost: heads of IP, TCP, TLS and yamux take 5 %; what is lost is sent
/// again, and what only seems lost because its answer is; a cut loses what was on its way; a lost link loses what came after the newest
/// checkpoint (5 s here) and all that waited. Measured over the variations: 1.05 to 1.2 with
/// cubic, 1.05 to 1.65 with bbr.
fn most_cost(told: &Told, plan: &Plan) -> f64 {
    let lost = (plan.there.loss + plan.back.loss) as f64 / 1000.0;
    // bbr does not slow down for losses: it sends more in vain, by the kernel's own choice.
    let share = match plan.congestion {
        "bbr" => 1.5 + 3.0 * lost,
        _ => 1.15 + 2.0 * lost,
    };
    let checkpoint = plan.there.rate as f64 / 8.0 * 5.0 + AHEAD as f64;
    let again = told.cuts.len() as f64 * CUT_LOSES + told.losses() as f64 * checkpoint;
    share + again / told.bytes as f64
}
