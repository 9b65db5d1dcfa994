//! What came of a comparison of copies, and what `status` says of the last one.

use jiff::Timestamp;

use super::{heading, trouble};
use crate::daemon::api::{DatasetVerify, PeerVerify, RoleStatus, VerifyReport};
use crate::error::Code;
use crate::logic::name::NodeName;
use crate::logic::units;
use crate::logic::verify::Difference;

/// Differing paths shown for each dataset; --json has more.
const SHOWN_MAX: usize = 20;

pub fn verify(report: &VerifyReport) -> String {
    let peers = report.peers.iter();
    let lines: Vec<String> = peers.flat_map(|peer| with(report, peer)).collect();
    lines.join("\n")
}

fn with(report: &VerifyReport, one: &PeerVerify) -> Vec<String> {
    let point = one.point.as_ref().map_or("", |point| point.short.as_str());
    let title = heading(&format!("role {}", report.role));
    let took = units::human_duration(one.seconds);
    let (ours, peer) = (&report.node, &one.peer);
    let mut lines = vec![match (one.equal, &one.error) {
        (Some(true), _) => {
            format!("{title}  {ours}'s copy of {point} is equal to {peer}'s (in {took})")
        }
        (Some(false), _) => {
            let differs = trouble("DIFFERS");
            format!("{title}  {ours}'s copy of {point} {differs} from {peer}'s (in {took})")
        }
        (None, _) => format!("{title}  {} with {peer}", trouble("not compared")),
    }];
    for (name, dataset) in &one.datasets {
        lines.push(format!("  {name}  {}", sums(dataset)));
        let shown = dataset.differences.iter().take(SHOWN_MAX);
        lines.extend(shown.map(|difference| {
            let path = match difference.path.as_str() {
                "" => "(its top directory)",
                path => path,
            };
            format!("    {path}: {}", words(difference.what, ours, peer))
        }));
        let rest = dataset.differences.len().saturating_sub(SHOWN_MAX);
        if rest > 0 {
            let more = if dataset.more { " or more" } else { "" };
            lines.push(format!("    and {rest}{more} others: --json lists them"));
        }
    }
    lines.extend(one.causes.iter().map(|cause| format!("  {cause}")));
    lines.extend(one.advice.iter().map(|advice| format!("  {advice}")));
    if let Some(error) = &one.error {
        lines.extend(error.lines().map(|line| format!("  {line}")));
    }
    lines
}

fn sums(dataset: &DatasetVerify) -> String {
    let read = match dataset.read_bytes >= dataset.bytes {
        true => String::new(),
        false => format!(
            ", {} of it read now",
            units::human_bytes(dataset.read_bytes)
        ),
    };
    format!(
        "{} files, {}{read}",
        dataset.files,
        units::human_bytes(dataset.bytes)
    )
}

fn words(what: Difference, ours: &NodeName, peer: &NodeName) -> String {
    match what {
        Difference::OnlyHere => format!("missing on {peer}"),
        Difference::OnlyThere => format!("missing on {ours}"),
        Difference::Kind => "of different kinds".to_owned(),
        Difference::Content => "content differs".to_owned(),
        Difference::Metadata => "owner, mode, times or attributes differ".to_owned(),
        Difference::UnreadableHere => format!("cannot be read on {ours}"),
        Difference::UnreadableThere => format!("cannot be read on {peer}"),
    }
}

/// Unequal where any copy is; else as of all peers, or partly done.
pub fn verify_code(report: &VerifyReport) -> Code {
    let codes = || report.peers.iter().map(|peer| peer.code);
    if codes().any(|code| code == Code::Unequal) {
        return Code::Unequal;
    }
    let first = codes().next().unwrap_or(Code::Done);
    match codes().all(|code| code == first) {
        true => first,
        false => Code::Partial,
    }
}

/// `verify  1.42 equal to birch's 3h ago`; nothing where copies were never compared.
pub(super) fn last_verified(role: &RoleStatus, now: Timestamp) -> Option<String> {
    let view = |view: &crate::daemon::api::VerifiedView| {
        let age = units::human_age(now.duration_since(view.ended).as_secs_f64());
        let word = match view.equal {
            true => "equal to".to_owned(),
            false => trouble("DIFFERED from"),
        };
        format!("{} {word} {}'s {age}", view.point.short, view.peer)
    };
    let views: Vec<String> = role.verified.iter().map(view).collect();
    (!views.is_empty()).then(|| format!("  verify {}", views.join(", ")))
}

/// An example, for docs/json.md and the tests.
#[cfg(test)]
pub fn sample() -> VerifyReport {
    use crate::commands::samples;
    use crate::daemon::api::PathDifference;
    let name = |word: &str| NodeName::parse(word).unwrap();
    let files = DatasetVerify {
        equal: false,
        files: 120_000,
        bytes: 20 << 30,
        read_bytes: 1 << 30,
        differences: vec![
            PathDifference {
                path: "www/index.html".into(),
                what: Difference::Content,
            },
            PathDifference {
                path: "www/old".into(),
                what: Difference::UnreadableThere,
            },
        ],
        more: false,
    };
    VerifyReport {
        node: name("alder"),
        role: samples::role(),
        peers: vec![PeerVerify {
            peer: name("birch"),
            point: Some(samples::summary(42, "12:30:05")),
            taken_by: Some(name("alder")),
            equal: Some(false),
            datasets: [(crate::logic::name::DatasetName::parse("files").unwrap(), files)].into(),
            causes: vec![
                "the disk of birch does not give files of 1.42 back: it may be failing".into(),
            ],
            advice: vec![
                "where alder's copy is the right one, on birch: standin verify web --point 1.42 --peer alder --repair".into(),
            ],
            code: Code::Unequal,
            error: None,
            seconds: 75.0,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(change: impl Fn(&mut PeerVerify), code: Code, expected: Expect) {
        console::set_colors_enabled(false);
        let mut report = sample();
        change(&mut report.peers[0]);
        expected.assert_eq(&verify(&report));
        assert_eq!(verify_code(&report), code);
    }

    #[test]
    fn reports() {
        check(
            |_| {},
            Code::Unequal,
            expect![[r#"
            role web  alder's copy of 1.42 DIFFERS from birch's (in 1m 15s)
              files  120000 files, 20.0 GiB, 1.0 GiB of it read now
                www/index.html: content differs
                www/old: cannot be read on birch
              the disk of birch does not give files of 1.42 back: it may be failing
              where alder's copy is the right one, on birch: standin verify web --point 1.42 --peer alder --repair"#]],
        );
        check(
            |peer| {
                (peer.equal, peer.code) = (Some(true), Code::Done);
                peer.causes.clear();
                peer.advice.clear();
                for dataset in peer.datasets.values_mut() {
                    dataset.differences.clear();
                }
            },
            Code::Done,
            expect![[r#"
                role web  alder's copy of 1.42 is equal to birch's (in 1m 15s)
                  files  120000 files, 20.0 GiB, 1.0 GiB of it read now"#]],
        );
        check(
            |peer| {
                (peer.equal, peer.code) = (None, Code::Unreachable);
                peer.error = Some("could not reach birch: no link yet".into());
                peer.datasets.clear();
                peer.causes.clear();
                peer.advice.clear();
            },
            Code::Unreachable,
            expect![[r#"
                role web  not compared with birch
                  could not reach birch: no link yet"#]],
        );
    }
}
