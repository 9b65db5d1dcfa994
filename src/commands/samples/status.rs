//! Examples of what `standin status` shows: a node that is active in a role, with a peer that follows and one that is not paired.

use super::{at, dataset, days_ago, id, name, node, role, summary, term};
use crate::daemon::api::*;
use crate::logic::predict::Prediction;
use crate::logic::progress::{Bottleneck, Direction, TransferView};

pub fn transfer() -> TransferView {
    TransferView {
        id: 12,
        role: role(),
        dataset: dataset("files"),
        peer: node("birch"),
        point: name(43, "12:35:05"),
        base: Some(name(42, "12:30:05")),
        direction: Direction::Sending,
        done_bytes: 1_310_720_000,
        total_bytes: 2_147_483_648,
        resumed_at: 536_870_912,
        wire_bytes: 402_653_184,
        rate: 35_651_584.0,
        eta_s: Some(23.5),
        file: "var/www/video/intro.mp4".into(),
        bottleneck: Some(Bottleneck::Link),
    }
}

fn peers() -> Vec<PeerStatus> {
    vec![
        PeerStatus {
            name: node("birch"),
            address: Some("birch.example.org:7321".into()),
            paired: true,
            linked: true,
            since: Some(at("10:00:00")),
            last_error: None,
            version: Some("0.1.0".into()),
            clock_difference_s: Some(3.2),
            rtt_ms: Some(12.4),
            limit: Some(250_000),
            limit_until: Some(at("20:00:00")),
            drift: Some(DriftView {
                compared: at("12:31:10"),
                same: 12,
                differences: 3,
                unknown: 0,
            }),
        },
        PeerStatus {
            name: node("cedar"),
            address: None,
            paired: false,
            linked: false,
            since: None,
            last_error: None,
            version: None,
            clock_difference_s: None,
            rtt_ms: None,
            limit: None,
            limit_until: None,
            drift: None,
        },
    ]
}

/// What a peer said last; nothing yet.
pub fn word(peer: &str, state: Option<&str>, newest: &str) -> WordStatus {
    WordStatus {
        peer: node(peer),
        said: state.map(|_| at("12:35:05")),
        state: state.map(str::to_owned),
        since: state.map(|_| days_ago()),
        epoch: state.map(|_| 1),
        newest: state.map(|_| newest.to_owned()),
        taken: state.map(|_| at("12:30:05")),
    }
}

fn in_the_role() -> RoleStatus {
    RoleStatus {
        name: role(),
        id: Some(id()),
        state: "active".into(),
        since: Some(days_ago()),
        outlook: None,
        home: Some(node("alder")),
        loss: None,
        words: vec![
            word("birch", Some("standby"), "1.42"),
            word("cedar", None, ""),
        ],
        forks: None,
        views: vec![],
        seeds: vec![
            crate::commands::render::seed::sample().files[0]
                .file
                .clone(),
        ],
        paused: false,
        trouble: None,
        term: Some(term()),
        active: Some(node("alder")),
        every: "5m".into(),
        next_run: Some(at("12:40:05")),
        last_good: Some(at("12:31:10")),
        last_error: None,
        phase: Some("transfer".into()),
        points: 43,
        damaged: 0,
        newest: Some(summary(43, "12:35:05")),
        drill: Some(crate::commands::render::drill::last()),
        drilling: false,
        logs: None,
        replicas: replicas(),
        datasets: vec![DatasetStatus {
            name: dataset("files"),
            path: "/srv/web".into(),
            free_bytes: Some(42_949_672_960),
            total_bytes: Some(107_374_182_400),
        }],
    }
}

fn replicas() -> Vec<ReplicaStatus> {
    vec![
        ReplicaStatus {
            peer: node("birch"),
            newest: Some(summary(42, "12:30:05")),
            exposure_s: Some(340.0),
            exposure_bytes: Some(12_582_912),
            handover: Some(Prediction {
                seconds: 2.4,
                unmeasured: vec![],
            }),
            behind: 1,
            last_error: None,
            waiting: None,
            retry_at: None,
            absent: None,
        },
        ReplicaStatus {
            peer: node("cedar"),
            newest: None,
            exposure_s: None,
            exposure_bytes: None,
            handover: None,
            behind: 43,
            last_error: Some("cedar is not paired".into()),
            waiting: None,
            retry_at: None,
            absent: None,
        },
    ]
}

pub fn status() -> Status {
    Status {
        node: node("alder"),
        version: "0.1.0".into(),
        now: at("12:35:45"),
        started: at("08:30:45"),
        peers: peers(),
        roles: vec![in_the_role()],
        transfers: vec![transfer()],
        warnings: vec!["web: files holds a swap file, which is not replicated: swap.img".into()],
        mounts: Vec::new(),
    }
}
