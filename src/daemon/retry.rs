//! Tries again what failed towards a peer, without waiting for the schedule: space comes back, disks are mended, file systems
//! become writable again.
//!
//! Promise: one attempt at a time for each role and peer; the next one's time is known and shown. What only a person can
//! mend (a refusal, two histories) is not tried again, nor is what the next link brings anyway. Kept in memory: a restart
//! of the daemon tries at once, when the link is up. The same loop lets go of filesystems that went read-only.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::node::{Node, Replica, RoleRun, lock};
use super::replicate;
use crate::error::{Code, Failure};
use crate::logic::name::{DatasetName, NodeName};
use crate::logic::point::PointId;
use crate::logic::retry::{Trouble, wait};
use crate::logic::shortage::Shortage;

/// How often it is looked whether a time has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A peer that is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The first failure in a row.
    pub since: Timestamp,
    pub next: Timestamp,
    pub failures: u32,
    /// `waiting for space on birch: ...`; none where the replica's last error says it.
    pub sentence: Option<String>,
    /// An attempt is under way.
    running: bool,
}

/// What a peer lacked for one dataset of one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    pub point: PointId,
    pub dataset: DatasetName,
    pub shortage: Shortage,
}

/// Notes how an attempt ended. True when this is news: another trouble than the last time, or the end of one.
pub fn note(replica: &mut Replica, peer: &NodeName, error: Option<&anyhow::Error>) -> bool {
    let before = replica.waiting.take();
    let trouble = match error.map(Failure::code_of) {
        None => {
            replica.lacking = None;
            return before.is_some();
        }
        Some(Code::NoSpace) if replica.lacking.is_some() => Trouble::Space,
        Some(Code::NoSpace | Code::Failed | Code::Locked) => Trouble::Other,
        Some(_) => return true,
    };
    let sentence = match (&replica.lacking, trouble) {
        (Some(lacking), Trouble::Space) => {
            Some(format!("waiting for space on {peer}: {}", lacking.shortage))
        }
        _ => None,
    };
    let news = before
        .as_ref()
        .is_none_or(|before| before.sentence.is_some() != sentence.is_some());
    let now = Timestamp::now();
    let failures = before
        .as_ref()
        .map_or(1, |before| before.failures.saturating_add(1));
    replica.waiting = Some(Waiting {
        since: before.map_or(now, |before| before.since),
        next: now.checked_add(wait(trouble, failures)).unwrap_or(now),
        failures,
        sentence,
        running: false,
    });
    news
}

/// Tries again until the daemon stops.
pub async fn keep(node: Arc<Node>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        for run in node.roles() {
            run.fs.let_go();
            for peer in due(&run) {
                let attempt = replicate::catch_up(&node, &run, &peer);
                let run = run.clone();
                tokio::spawn(async move {
                    // However it ended, the next time may come.
                    let _ = attempt.await;
                    if let Some(replica) = lock(&run.replicas).get_mut(&peer) {
                        if let Some(waiting) = &mut replica.waiting {
                            waiting.running = false;
                        }
                    }
                });
            }
        }
    }
}

/// The peers whose time has come; each is told once.
fn due(run: &RoleRun) -> Vec<NodeName> {
    let now = Timestamp::now();
    let mut replicas = lock(&run.replicas);
    let come = replicas.iter_mut().filter_map(|(peer, replica)| {
        let waiting = replica.waiting.as_mut()?;
        let due = waiting.next <= now && !waiting.running;
        waiting.running |= due;
        due.then(|| peer.clone())
    });
    come.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::point::Term;

    fn birch() -> NodeName {
        NodeName::parse("birch").unwrap()
    }

    fn lacking() -> Lacking {
        let holder = NodeName::parse("alder").unwrap();
        let term = Term {
            epoch: 1,
            holder,
            nonce: 1,
        };
        Lacking {
            point: PointId { term, sequence: 2 },
            dataset: DatasetName::parse("files").unwrap(),
            shortage: Shortage {
                needed: 3 << 20,
                free: 1 << 20,
                reserve: 1 << 30,
            },
        }
    }

    /// Attempts, each as its end; expected: whether each was news, and the last sentence.
    fn check(ends: &[Option<Code>], lacks: bool, news: &[bool], waits: bool, sentence: &str) {
        let mut replica = Replica {
            lacking: lacks.then(lacking),
            ..Replica::default()
        };
        let told: Vec<bool> = ends
            .iter()
            .map(|end| {
                let error = end.map(|code| Failure::new(code, "x").into());
                note(&mut replica, &birch(), error.as_ref())
            })
            .collect();
        assert_eq!(told, news, "{ends:?}");
        assert_eq!(replica.waiting.is_some(), waits, "{ends:?}");
        let said = replica.waiting.and_then(|waiting| waiting.sentence);
        assert_eq!(said.unwrap_or_default(), sentence);
    }

    #[test]
    fn what_is_tried_again() {
        let short =
            "waiting for space on birch: 3.0 MiB needed, 1.0 MiB free above the reserve of 1.0 GiB";
        let (space, failed) = (Some(Code::NoSpace), Some(Code::Failed));
        check(&[space], true, &[true], true, short);
        check(&[space, space, None], true, &[true, false, true], false, "");
        check(&[space, failed], true, &[true, true], true, "");
        // Our own disk is full: not the peer's lack.
        check(&[space], false, &[true], true, "");
        check(&[failed, failed], false, &[true, false], true, "");
        check(&[None], false, &[false], false, "");
        for code in [
            Code::Refused,
            Code::Diverged,
            Code::Unreachable,
            Code::Interrupted,
        ] {
            check(&[failed, Some(code)], false, &[true, true], false, "");
        }
    }

    #[test]
    fn each_time_comes_once() {
        let mut replica = Replica::default();
        let error = Failure::new(Code::Failed, "x").into();
        for failures in 1..5 {
            note(&mut replica, &birch(), Some(&error));
            assert_eq!(replica.waiting.as_ref().unwrap().failures, failures);
        }
        let waiting = replica.waiting.unwrap();
        assert!(waiting.next > waiting.since && !waiting.running);
    }
}
