//! Samples of what there is to look at and to compare.

use super::{at, dataset, role};
use crate::daemon::api::*;

pub fn diff() -> DiffReport {
    let sum = |files, directories, bytes| DiffSum {
        files,
        directories,
        bytes,
    };
    let plain = |what: &str, path: &str, sizes: (Option<u64>, Option<u64>)| DifferenceView {
        what: what.into(),
        path: path.into(),
        from: None,
        kind: Some("file".into()),
        was: None,
        old_bytes: sizes.0,
        new_bytes: sizes.1,
        written: 0,
        content: what == "changed",
        metadata: false,
        at: Some(at("10:31:00")),
        inside: None,
        text: None,
        text_note: None,
    };
    let mut config = plain("changed", "etc/app.conf", (Some(12), Some(13)));
    config.text = Some(
        "--- etc/app.conf\n+++ etc/app.conf\n@@ -1,2 +1,2 @@\n name = x\n-port = 1\n+port = 22\n"
            .into(),
    );
    let mut moved = plain("renamed", "www/index.html", (Some(700), Some(700)));
    moved.from = Some("www/draft.html".into());
    let mut gallery = plain("added", "www/new", (None, None));
    gallery.kind = Some("directory".into());
    gallery.inside = Some(sum(12, 1, 3_400_000));
    let sums = DiffSums {
        added: sum(12, 2, 3_400_000),
        removed: sum(1, 0, 3_000),
        changed: sum(2, 0, 9_715),
        renamed: sum(1, 0, 0),
        metadata: sum(1, 0, 0),
    };
    let mut orders = plain("changed", "orders.db", (Some(40_960), Some(49_152)));
    orders.written = 9_702;
    orders.text_note = Some("not text".into());
    let tool = plain("metadata", "bin/tool", (Some(90), Some(90)));
    let old = plain("removed", "www/old.html", (Some(3_000), None));
    DiffReport {
        role: role(),
        old: DiffSide {
            kind: "point".into(),
            short: "1.42".into(),
            taken: at("12:30:05"),
        },
        new: DiffSide {
            kind: "live".into(),
            short: "live".into(),
            taken: at("12:41:00"),
        },
        datasets: vec![DatasetDiff {
            dataset: dataset("files"),
            compared: true,
            note: None,
            sums,
            tops: Vec::new(),
            differences: vec![tool, config, orders, moved, gallery, old],
            left_out: 0,
        }],
    }
}

pub fn browse() -> BrowseReport {
    BrowseReport {
        mounts: vec![
            MountView {
                dir: "/mnt/points".into(),
                role: None,
            },
            MountView {
                dir: "/mnt/web".into(),
                role: Some(role()),
            },
        ],
        steps: vec![Step {
            what: "mount".into(),
            text: "show the points of role web below /mnt/web, read-only".into(),
            ok: Some(true),
            error: None,
        }],
    }
}

/// The examples of docs/json.md.
pub fn examples() -> [(&'static str, &'static str, serde_json::Value); 2] {
    [
        (
            "Diff",
            "`standin diff --json`; with `--stat`, `tops` instead of `differences` (`left_out` counts them)",
            serde_json::json!(diff()),
        ),
        (
            "Mount",
            "`standin mount --json`, also without a directory, and `standin unmount --json`",
            serde_json::json!(browse()),
        ),
    ]
}
