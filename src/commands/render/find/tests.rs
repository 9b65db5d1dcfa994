//! What a person sees of versions, and the examples of docs/json.md.

use expect_test::expect;
use jiff::Timestamp;

use super::*;
use crate::commands::samples;
use crate::daemon::api::{PeerAsked, PointSummary, Source};
use crate::logic::name::{DatasetName, NodeName};

fn node(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

fn version(
    number: Option<u32>,
    what: What,
    (first, last): (PointSummary, PointSummary),
    size: u64,
    modified: &str,
) -> VersionView {
    let there = number.is_some();
    let at: Timestamp = format!("2026-11-20T{modified}Z").parse().unwrap();
    VersionView {
        number,
        what,
        kind: there.then_some(Kind::File),
        size: there.then_some(size),
        modified: there.then_some(at),
        mode: there.then_some(0o644),
        uid: there.then_some(33),
        gid: there.then_some(33),
        target: None,
        points: 1 + usize::from(first != last),
        first: Some(first),
        last: Some(last),
        by: Some(node("alder")),
        on: [node("alder"), node("birch")].into(),
        live: false,
        here: true,
        fork: None,
        same_as: None,
    }
}

pub fn sample() -> FindReport {
    let at = |n| samples::summary(n, &format!("12:{:02}:05", n - 10));
    let mut newest = version(Some(1), What::Metadata, (at(43), at(43)), 1210, "12:10:00");
    (newest.live, newest.mode) = (true, Some(0o600));
    let created = version(Some(2), What::Created, (at(41), at(42)), 1210, "12:10:00");
    let gone = version(None, What::Removed, (at(40), at(40)), 0, "12:10:00");
    let mut forked = version(Some(3), What::Changed, (at(39), at(39)), 5000, "12:08:00");
    forked.fork = Some("1.39".into());
    let mut old = version(Some(4), What::Oldest, (at(20), at(21)), 900, "11:00:00");
    (old.here, old.on) = (false, [node("birch")].into());
    FindReport {
        node: node("alder"),
        now: "2026-11-20T12:36:00Z".parse().unwrap(),
        paths: vec![FoundPath {
            role: samples::role(),
            dataset: DatasetName::parse("files").unwrap(),
            path: "www/index.html".into(),
            live_path: "/srv/web/www/index.html".into(),
            versions: vec![newest, created, gone, forked, old],
        }],
        cut: false,
        peers: vec![
            PeerAsked {
                peer: node("birch"),
                why: None,
                hint: None,
            },
            PeerAsked {
                peer: node("cedar"),
                why: Some("not asked: no link yet".into()),
                hint: Some("the next cycle tries again; `standin status` shows the links".into()),
            },
        ],
        notes: vec![],
    }
}

pub fn bring_sample() -> BringReport {
    let found = sample().paths.remove(0);
    let mut restore = samples::restore();
    restore.steps[1].text = "put www/index.html of 1.42 at /srv/web/www/index.html".into();
    restore.steps[1].what = "copy".into();
    BringReport {
        source: Source {
            point: Some(restore.point.name),
            fork: None,
            peer: None,
        },
        restore,
        dataset: found.dataset,
        path: found.path,
        target: found.live_path.clone(),
        live_path: found.live_path,
        version: found.versions.into_iter().nth(1),
        live: Some("file, 1.2 KiB, changed 2026-11-20 12:10:00".into()),
        diff: Some("--- live\n+++ 1.42\n@@ -1 +1 @@\n-new\u{1b}[2J\n+old\n".into()),
        same: false,
    }
}

#[test]
fn versions_newest_first() {
    console::set_colors_enabled(false);
    expect![[r#"
        /srv/web/www/index.html  (web/files)
          N  SINCE                     LAST IN                      SIZE  MODIFIED             WHAT                       WHERE
          1  2026-11-20 12:33:05 1.43  live                      1.2 KiB  2026-11-20 12:10:00  mode 644 -> 600, on alder  live, 1 point, on alder birch
          2  2026-11-20 12:31:05 1.41  2026-11-20 12:32:05 1.42  1.2 KiB  2026-11-20 12:10:00  created, on alder          2 points, on alder birch
          -  2026-11-20 12:30:05 1.40  2026-11-20 12:30:05 1.40                                removed, on alder
          3  2026-11-20 12:29:05 1.39  2026-11-20 12:29:05 1.39  4.9 KiB  2026-11-20 12:08:00  changed, on alder          fork 1.39, on alder birch
          4  2026-11-20 12:10:05 1.20  2026-11-20 12:11:05 1.21    900 B  2026-11-20 11:00:00  there already, on alder    2 points, only on birch
        cedar: not asked: no link yet
        hint: the next cycle tries again; `standin status` shows the links
        hint: standin cat /srv/web/www/index.html --version 2 shows that one, standin restore /srv/web/www/index.html --version 2 brings it back"#]].assert_eq(&find(&sample()));
}

#[test]
fn many_paths_are_a_line_each() {
    console::set_colors_enabled(false);
    let mut report = sample();
    report.cut = true;
    report.peers.clear();
    let path = report.paths.remove(0);
    report.paths = vec![path; 6];
    report.paths[0].live_path = "/srv/a\u{1b}[2J".into();
    report.paths[1].versions.remove(0);
    report.paths[1].versions.remove(0);
    expect![[r#"
        PATH                     VERSIONS  NOW         SIZE  MODIFIED
        /srv/a\u{1b}[2J                 4  there    1.2 KiB  2026-11-20 12:10:00
        /srv/web/www/index.html         2  removed  4.9 KiB  2026-11-20 12:08:00
        /srv/web/www/index.html         4  there    1.2 KiB  2026-11-20 12:10:00
        /srv/web/www/index.html         4  there    1.2 KiB  2026-11-20 12:10:00
        /srv/web/www/index.html         4  there    1.2 KiB  2026-11-20 12:10:00
        /srv/web/www/index.html         4  there    1.2 KiB  2026-11-20 12:10:00
        there is more: write a narrower pattern
        hint: standin find PATH shows the versions of one"#]]
    .assert_eq(&find(&report));
    report.paths.clear();
    report.cut = false;
    expect!["nothing of that kind"].assert_eq(&find(&report));
}

#[test]
fn what_a_restore_shows() {
    console::set_colors_enabled(false);
    let mut report = bring_sample();
    report.restore.dry_run = true;
    expect![[r#"
        restore /srv/web/www/index.html  from 1.42, taken 2026-11-20 12:30:05 UTC
          then  version 2, file, 1.2 KiB, changed 2026-11-20 12:10:00
          live  file, 1.2 KiB, changed 2026-11-20 12:10:00
          ok  keep what is live now as point 1.44
          ok  put www/index.html of 1.42 at /srv/web/www/index.html
        --- live
        +++ 1.42
        @@ -1 +1 @@
        -new [2J
        +old"#]]
    .assert_eq(&bring(&report));
    expect!["what was live before is kept as point 1.44; to undo: standin restore /srv/web/www/index.html --point 1.44"].assert_eq(&bring_undo(&report).unwrap());
}

#[test]
fn words_for_a_shell() {
    let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
    check("/srv/web/a.txt", "/srv/web/a.txt");
    check("/srv/my file", "'/srv/my file'");
    check("it's", r"'it'\''s'");
    check("", "''");
}
