//! What the runs come to: medians, ratios of pairs in the same round, goals, as a table, as JSON and as a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::contenders::Who;
use crate::courses::Run;

/// How much faster than another one a workload shall be, and with what part of its processor time.
pub struct Goal {
    pub workload: &'static str,
    pub against: Who,
    pub times: f64,
    pub cpu_at_most: Option<f64>,
}

const fn goal(workload: &'static str, against: Who, times: f64, cpu: f64) -> Goal {
    let cpu_at_most = if cpu > 0.0 { Some(cpu) } else { None };
    Goal {
        workload,
        against,
        times,
        cpu_at_most,
    }
}

pub const GOALS: &[Goal] = &[
    goal("a", Who::Btrbk, 2.5, 0.5),
    goal("a", Who::Pipe, 0.9, 0.0),
    goal("b", Who::Btrbk, 2.5, 0.7),
    goal("b", Who::Pipe, 1.6, 0.0),
    goal("c", Who::Btrbk, 4.0, 0.6),
    goal("c", Who::Pipe, 1.8, 0.0),
    goal("d", Who::Btrbk, 3.0, 0.6),
    goal("d", Who::Pipe, 1.0, 0.0),
    goal("e-packed", Who::Btrbk, 8.0, 0.2),
    goal("e-packed", Who::Pipe2, 0.8, 0.0),
    goal("e-packed", Who::Pipe, 4.0, 0.0),
    goal("e-plain", Who::ZstdSsh, 2.0, 0.0),
    goal("f", Who::Btrbk, 50.0, 0.0),
    goal("g-none", Who::Btrbk, 50.0, 0.0),
    goal("g-all", Who::Btrbk, 30.0, 0.0),
];

/// standin against another contender.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Ratio {
    pub workload: &'static str,
    pub against: Who,
    /// Median over the rounds of theirs / ours, on disk: above 1 standin is faster.
    pub times: f64,
    /// The least and the most of a round.
    pub from: f64,
    pub to: f64,
    /// Median of ours / theirs.
    pub cpu: f64,
    pub goal_times: Option<f64>,
    pub goal_cpu: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// By workload and contender, in rounds.
fn grouped(runs: &[Run]) -> BTreeMap<(&'static str, Who), Vec<&Run>> {
    let mut all: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        all.entry((run.workload, run.who)).or_default().push(run);
    }
    all
}

pub fn ratios(runs: &[Run]) -> Vec<Ratio> {
    let all = grouped(runs);
    let mut ratios = Vec::new();
    for ((workload, who), theirs) in &all {
        let Some(ours) = all
            .get(&(*workload, Who::Standin))
            .filter(|_| *who != Who::Standin)
        else {
            continue;
        };
        let pairs = || {
            ours.iter().flat_map(|our| {
                theirs
                    .iter()
                    .filter(|their| their.round == our.round)
                    .map(|their| (our.reading, their.reading))
            })
        };
        let times: Vec<f64> = pairs()
            .map(|(our, their)| their.durable_s / our.durable_s)
            .collect();
        if times.is_empty() {
            continue;
        }
        let goal = GOALS
            .iter()
            .find(|goal| goal.workload == *workload && goal.against == *who);
        ratios.push(Ratio {
            workload,
            against: *who,
            from: times.iter().copied().fold(f64::INFINITY, f64::min),
            to: times.iter().copied().fold(0.0, f64::max),
            times: median(times),
            cpu: median(
                pairs()
                    .map(|(our, their)| our.cpu_s / their.cpu_s.max(1e-6))
                    .collect(),
            ),
            goal_times: goal.map(|goal| goal.times),
            goal_cpu: goal.and_then(|goal| goal.cpu_at_most),
        });
    }
    ratios
}

/// Two tables of Markdown.
pub fn table(runs: &[Run]) -> String {
    let mut out = String::from(
        "| workload | contender | seconds | on disk | processor s | peak MiB | rounds |\n|---|---|---:|---:|---:|---:|---:|\n",
    );
    for ((workload, who), runs) in grouped(runs) {
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(|run| value(run)).collect());
        let _ = writeln!(
            out,
            "| {workload} | {who:?} | {:.3} | {:.3} | {:.2} | {:.0} | {} |",
            of(|run| run.reading.wall_s),
            of(|run| run.reading.durable_s),
            of(|run| run.reading.cpu_s),
            of(|run| run.reading.peak_bytes as f64 / 1048576.0),
            runs.len()
        );
    }
    out += "\n| workload | against | times faster (least to most) | goal | processor | goal |\n|---|---|---:|---:|---:|---:|\n";
    for ratio in ratios(runs) {
        let goal =
            |met: bool, goal: String| format!("{goal} {}", if met { "met" } else { "MISSED" });
        let times = ratio.goal_times.map_or(String::new(), |wanted| {
            goal(ratio.times >= wanted, format!("{wanted}"))
        });
        let cpu = ratio.goal_cpu.map_or(String::new(), |wanted| {
            goal(ratio.cpu <= wanted, format!("{wanted}"))
        });
        let _ = writeln!(
            out,
            "| {} | {:?} | {:.2} ({:.2} to {:.2}) | {times} | {:.2} | {cpu} |",
            ratio.workload, ratio.against, ratio.times, ratio.from, ratio.to, ratio.cpu
        );
    }
    out
}

/// The ratios as bars on a scale of powers of two; the goal is a mark.
pub fn picture(ratios: &[Ratio]) -> String {
    let (left, width, row) = (190.0, 480.0, 22.0);
    let height = 60.0 + row * ratios.len() as f64;
    let top = ratios
        .iter()
        .map(|ratio| ratio.times.max(ratio.goal_times.unwrap_or(1.0)))
        .fold(2.0, f64::max);
    let (low, high) = (-2.0, top.log2().ceil());
    let x = |times: f64| left + (times.log2().clamp(low, high) - low) / (high - low) * width;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">standin: times faster, until the destination has it on disk (mark: the goal)</text>\n",
        left + width + 70.0
    );
    let mut power = low;
    while power <= high {
        let (at, times) = (x(power.exp2()), power.exp2());
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"30\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"{}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{times}</text>",
            height - 22.0,
            if power == 0.0 { "#000" } else { "#ddd" },
            height - 8.0
        );
        power += 1.0;
    }
    for (index, ratio) in ratios.iter().enumerate() {
        let y = 36.0 + row * index as f64;
        let (one, end) = (x(1.0), x(ratio.times));
        let met = ratio.goal_times.is_none_or(|goal| ratio.times >= goal);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} against {:?}</text><rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            left - 8.0,
            y + 11.0,
            ratio.workload,
            ratio.against,
            one.min(end),
            (end - one).abs().max(1.0),
            if met { "#3a7d44" } else { "#c05621" },
            one.max(end) + 5.0,
            y + 11.0,
            ratio.times
        );
        if let Some(goal) = ratio.goal_times {
            let at = x(goal);
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#000\" stroke-width=\"2\"/>",
                y - 2.0,
                y + 16.0
            );
        }
    }
    out + "</svg>\n"
}
