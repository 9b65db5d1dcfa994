//! `standin drift`: by peer, what differs and how.

use super::{attention, heading, trouble};
use crate::commands::human;
use crate::daemon::api::{DriftReport, PeerDrift};
use crate::error::Code;
use crate::host::command::harmless;
use crate::logic::drift::{Compared, State};
use crate::logic::name::NodeName;

/// What is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Differing,
    /// Also what is the same.
    All,
}

pub fn drift(report: &DriftReport, shown: Shown) -> String {
    let watched = |peer: &PeerDrift| peer.error.is_some() || !peer.compared.is_empty();
    let peers: Vec<&PeerDrift> = report.peers.iter().filter(|peer| watched(peer)).collect();
    if peers.is_empty() {
        return "nothing to compare: [[node.watch]] in the configuration names what is watched, and another node has to watch \
                the same"
            .to_owned();
    }
    let mut lines = Vec::new();
    for peer in peers {
        lines.extend(of_peer(&report.node, peer, shown));
    }
    lines.join("\n")
}

fn of_peer(here: &NodeName, peer: &PeerDrift, shown: Shown) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {}",
        heading(&format!("peer {}", peer.peer)),
        summary(peer)
    )];
    if let Some(error) = &peer.error {
        lines.extend(indented(2, error));
        lines.extend(
            peer.hint
                .iter()
                .flat_map(|hint| indented(2, &format!("hint: {hint}"))),
        );
    }
    for one in &peer.compared {
        let quiet = matches!(one.state, State::Same | State::Accepted);
        if quiet && shown == Shown::Differing {
            continue;
        }
        lines.push(format!(
            "  {}  {}",
            word(here, &peer.peer, one.state),
            named(one)
        ));
        lines.extend(one.why.iter().flat_map(|why| indented(4, why)));
        lines.extend(one.diff.iter().flat_map(|diff| indented(4, diff)));
    }
    lines
}

fn summary(peer: &PeerDrift) -> String {
    if peer.error.is_some() {
        return trouble("not compared");
    }
    let count = |is: fn(State) -> bool| peer.compared.iter().filter(|one| is(one.state)).count();
    let (differences, unknown) = (count(State::is_difference), count(State::is_unknown));
    let same = peer.compared.len() - differences - unknown;
    let mut words = vec![match differences {
        0 => "no difference".to_owned(),
        count => attention(&human::count(count, "difference")),
    }];
    if unknown > 0 {
        words.push(attention(&format!("{unknown} not compared")));
    }
    words.push(format!("{same} the same"));
    words.join(", ")
}

/// The watch, and the file or package where that says more.
fn named(one: &Compared) -> String {
    let watch = harmless(one.watch.as_bytes());
    match one
        .item
        .as_ref()
        .map(|item| harmless(item.as_bytes()).replace('\n', " "))
    {
        Some(item) if item != watch => format!("{watch}: {item}"),
        _ => watch,
    }
}

fn word(here: &NodeName, there: &NodeName, state: State) -> String {
    match state {
        State::Same => "same".to_owned(),
        State::Accepted => "on one node only, accepted".to_owned(),
        State::Differs => attention("DIFFERS"),
        State::OnlyHere => attention(&format!("only on {here}")),
        State::OnlyThere => attention(&format!("only on {there}")),
        State::UnreadableHere => attention(&format!("not read on {here}")),
        State::UnreadableThere => attention(&format!("not read on {there}")),
        State::NotWatchedThere => attention(&format!("not watched on {there} with {here}")),
    }
}

/// Texts of files, and a peer's words: not a terminal's to obey.
fn indented(by: usize, text: &str) -> Vec<String> {
    let blanks = " ".repeat(by);
    let text = harmless(text.as_bytes());
    text.lines().map(|line| format!("{blanks}{line}")).collect()
}

/// 18 where something differs, else what kept it from being compared.
pub fn code(report: &DriftReport) -> Code {
    let all = || report.peers.iter().flat_map(|peer| &peer.compared);
    let failed: Vec<Code> = report.peers.iter().filter_map(|peer| peer.code).collect();
    if all().any(|one| one.state.is_difference()) {
        return Code::Differs;
    }
    match failed.first() {
        Some(code)
            if failed.len() == report.peers.len() && failed.iter().all(|other| other == code) =>
        {
            *code
        }
        Some(_) => Code::Partial,
        None if all().any(|one| one.state.is_unknown()) => Code::Partial,
        None => Code::Done,
    }
}

/// What the renderings are tested on, and what docs/json.md shows.
#[cfg(test)]
pub fn sample() -> DriftReport {
    let node = |word: &str| NodeName::parse(word).unwrap();
    let one = |watch: &str, item: Option<&str>, state| Compared {
        watch: watch.to_owned(),
        item: item.map(str::to_owned),
        state,
        diff: None,
        why: None,
    };
    let mut conf = one("/etc/nginx", Some("/etc/nginx/nginx.conf"), State::Differs);
    conf.diff =
        Some("--- alder\n+++ birch\n@@ -1 +1 @@\n-workers 4\n+workers \u{1b}[2J2\n".to_owned());
    let mut key = one("/etc/app/key", Some("/etc/app/key"), State::Differs);
    key.why = Some("secret: the difference is not shown".to_owned());
    let mut unread = one("nginx -V", None, State::UnreadableThere);
    unread.why = Some("could not run nginx: no such program that can be executed".to_owned());
    DriftReport {
        node: node("alder"),
        peers: vec![
            PeerDrift {
                peer: node("birch"),
                error: None,
                hint: None,
                code: None,
                compared: vec![
                    conf,
                    one("/etc/nginx", Some("/etc/nginx/mime.types"), State::Same),
                    one("/etc/nginx", Some("/etc/nginx/old.conf"), State::OnlyThere),
                    key,
                    unread,
                    one("kernel", None, State::NotWatchedThere),
                ],
            },
            PeerDrift {
                peer: node("cedar"),
                error: Some("could not reach cedar: no link yet".to_owned()),
                hint: Some(
                    "the next cycle tries again; `standin status` shows the links".to_owned(),
                ),
                code: Some(Code::Unreachable),
                compared: vec![],
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_differs_and_how() {
        console::set_colors_enabled(false);
        expect![[r#"
            peer birch  3 differences, 2 not compared, 1 the same
              DIFFERS  /etc/nginx: /etc/nginx/nginx.conf
                --- alder
                +++ birch
                @@ -1 +1 @@
                -workers 4
                +workers  [2J2
              only on birch  /etc/nginx: /etc/nginx/old.conf
              DIFFERS  /etc/app/key
                secret: the difference is not shown
              not read on birch  nginx -V
                could not run nginx: no such program that can be executed
              not watched on birch with alder  kernel
            peer cedar  not compared
              could not reach cedar: no link yet
              hint: the next cycle tries again; `standin status` shows the links"#]]
        .assert_eq(&drift(&sample(), Shown::Differing));
        let mut report = sample();
        report.peers[0].compared.truncate(2);
        report.peers.truncate(1);
        expect![[r#"
            peer birch  1 difference, 1 the same
              DIFFERS  /etc/nginx: /etc/nginx/nginx.conf
                --- alder
                +++ birch
                @@ -1 +1 @@
                -workers 4
                +workers  [2J2
              same  /etc/nginx: /etc/nginx/mime.types"#]]
        .assert_eq(&drift(&report, Shown::All));
        report.peers.clear();
        assert!(drift(&report, Shown::All).contains("[[node.watch]]"));
    }

    #[test]
    fn codes() {
        let check = |change: fn(&mut DriftReport), expected| {
            let mut report = sample();
            change(&mut report);
            assert_eq!(code(&report), expected);
        };
        check(|_| {}, Code::Differs);
        check(|report| drop(report.peers.remove(0)), Code::Unreachable);
        check(|report| report.peers[0].compared.clear(), Code::Partial);
        check(
            |report| {
                report.peers.truncate(1);
                report.peers[0]
                    .compared
                    .retain(|one| one.state.is_unknown());
            },
            Code::Partial,
        );
        check(
            |report| {
                report.peers.truncate(1);
                report.peers[0]
                    .compared
                    .retain(|one| one.state == State::Same);
            },
            Code::Done,
        );
    }
}
