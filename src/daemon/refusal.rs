//! Why a role is not promoted, in words, and what to do instead.

use super::node::{Node, RoleRun};
use super::promote::Gathered;
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;
use crate::logic::point::PointId;
use crate::logic::promotion::Refused;
use crate::logic::role::State;

fn names(list: &[NodeName]) -> String {
    let names: Vec<&str> = list.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

pub fn taken(gathered: &Gathered, point: &PointId) -> String {
    let found = gathered
        .stored
        .iter()
        .find(|stored| stored.manifest.point == *point);
    found.map_or_else(
        || point.to_string(),
        |stored| {
            let zoned = stored.manifest.taken.to_zoned(jiff::tz::TimeZone::system());
            format!("{point} (taken {})", zoned.strftime("%Y-%m-%d %H:%M:%S"))
        },
    )
}

/// The refusal, and what to do next.
pub fn why_not(node: &Node, run: &RoleRun, gathered: &Gathered, refused: Refused) -> anyhow::Error {
    let (code, why, hint) = in_the_way(node, run, gathered, refused);
    Failure::new(code, format!("promote {}: {why}", run.name))
        .hint(hint)
        .into()
}

/// A state, a node, a term or the want of a point: code, why, what to do.
fn in_the_way(
    node: &Node,
    run: &RoleRun,
    gathered: &Gathered,
    refused: Refused,
) -> (Code, String, String) {
    let role = &run.name;
    match refused {
        Refused::State(why) => {
            let hint = match gathered.record.part.state {
                State::Waking { .. } => format!("standin resume {role}"),
                State::Conflict { .. } => format!("standin resolve {role} --keep NODE"),
                _ => format!("see: standin status {role}"),
            };
            (Code::Refused, why.to_owned(), hint)
        }
        Refused::Active(name) => {
            let ours = node.name();
            let hint =
                format!("move it without loss, on {name}: standin handover {role} --to {ours}");
            (
                Code::Refused,
                format!("{name} plays the role, and answers"),
                hint,
            )
        }
        Refused::Released(name) => (
            Code::Refused,
            format!(
                "the role was released to {name}, which answers and may take it up at any moment"
            ),
            format!("wait for it, or promote on {name}"),
        ),
        Refused::HigherTerm { by, term } => {
            let ours = gathered.record.term();
            let hint =
                "a higher term is never overridden; try again when this node has caught up with it";
            let why = format!("{by} knows term {term}, which is higher than {ours}");
            (Code::Fenced, why, hint.to_owned())
        }
        Refused::Silent(silent) => unheard(run, &silent),
        Refused::NoPoint => (
            Code::NotFound,
            "this node holds no whole point of it".to_owned(),
            "there is nothing to promote here; try the other nodes".to_owned(),
        ),
        Refused::UnknownPoint(point) => (
            Code::NotFound,
            format!("{point} is not of the line"),
            format!("see: standin points {role}"),
        ),
        lost @ (Refused::Loss { .. } | Refused::OtherLoss { .. }) => loss(gathered, lost),
    }
}

fn unheard(run: &RoleRun, silent: &[NodeName]) -> (Code, String, String) {
    let flags: String = silent
        .iter()
        .map(|name| format!(" --assert-stopped {name}"))
        .collect();
    let hint = format!(
        "make sure that it serves nobody (power, network, services), then say so: standin promote {}{flags}",
        run.name
    );
    let silent = names(silent);
    let why = format!("no answer from {silent}: it may play the role at this moment");
    (Code::Refused, why, hint)
}

/// What would be lost and was not accepted by name.
fn loss(gathered: &Gathered, refused: Refused) -> (Code, String, String) {
    match refused {
        Refused::Loss {
            after,
            unheard,
            other_lines,
            left_behind,
        } => {
            let lost = losses(gathered, &after, &unheard, &other_lines, &left_behind);
            let point = taken(gathered, &after);
            let why = format!("this would go on from {point}: {}", lost.join("; "));
            accept(why, &after)
        }
        Refused::OtherLoss { accepted, promoted } => {
            let point = taken(gathered, &promoted);
            let why = format!(
                "the loss after {accepted} was accepted, but this would go on from {point}"
            );
            accept(why, &promoted)
        }
        other => (Code::Refused, format!("{other:?}"), String::new()),
    }
}

fn accept(why: String, point: &PointId) -> (Code, String, String) {
    let hint = format!(
        "nothing of it is destroyed, it becomes a fork; if that is right: --accept-loss-after {point}"
    );
    (Code::Refused, why, hint)
}

/// What would not be in the line, a sentence each.
pub fn losses(
    gathered: &Gathered,
    after: &PointId,
    unheard: &[NodeName],
    other_lines: &[NodeName],
    left_behind: &[PointId],
) -> Vec<String> {
    let mut sentences = Vec::new();
    for name in unheard {
        sentences.push(format!(
            "whatever {name} wrote after {after} is not in this copy, and becomes a fork on {name} when it returns"
        ));
    }
    for name in other_lines {
        sentences.push(format!(
            "{name} followed another claim of the epoch: what it holds of that becomes a fork there"
        ));
    }
    if let (Some(first), Some(last)) = (left_behind.first(), left_behind.last()) {
        let count = left_behind.len();
        let points = if count == 1 { "point" } else { "points" };
        sentences.push(format!(
            "{count} {points} held here ({first} to {}) come after it and become a fork",
            taken(gathered, last)
        ));
    }
    sentences
}
