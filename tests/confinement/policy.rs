//! What gives power on the copy - devices, setuid, attributes of the namespaces security and trusted - is kept, dropped or
//! refused as the config says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use standin::fs::Limits;
use standin::fs::btrfs::stream::Command;
use standin::logic::accept::{Accept, Treatment};

use super::support::fixture::ready;
use super::support::receiving::LIMITS;
use super::{Ground, MOMENT, OWN};

/// A version 2 capability set (linux/capability.h): cap_net_bind_service, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// As a kernel would send them: the node is made, renamed, owned, dated.
fn powerful() -> Vec<Command<'static>> {
    #[rustfmt::skip]
    let commands = [
        Command::Mknod { path: b"o257", mode: 0o20666, device: 259 },
        Command::Rename { from: b"o257", to: b"null" },
        Command::Chown { path: b"null", uid: 0, gid: 0 },
        Command::Chmod { path: b"null", mode: 0o666 },
        Command::Utimes { path: b"null", accessed: MOMENT, modified: MOMENT, changed: MOMENT },
        Command::Chmod { path: b"own", mode: 0o6755 },
        Command::SetXattr { path: b"own", name: b"security.capability", value: &CAPABILITY },
        Command::SetXattr { path: b"own", name: b"trusted.overlay.opaque", value: b"y" },
        Command::SetXattr { path: b"own", name: b"user.plain", value: b"v" },
        Command::Mkdir { path: b"shared", inode: None },
        Command::Chmod { path: b"shared", mode: 0o2775 },
    ];
    [&OWN[..], &commands].concat()
}

fn within(accept: Accept) -> Limits {
    Limits { accept, ..LIMITS }
}

fn has(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0; 100][..]).is_ok()
}

#[test]
fn kept_where_nothing_is_said() {
    if !ready("kept_where_nothing_is_said") {
        return;
    }
    let mut ground = Ground::new();
    let at = ground.check_within(LIMITS, &powerful(), None);
    assert!(
        fs::symlink_metadata(at.join("null"))
            .unwrap()
            .file_type()
            .is_char_device()
    );
    let own = at.join("own");
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o7777, 0o6755);
    assert!(has(&own, "security.capability") && has(&own, "trusted.overlay.opaque"));
}

#[test]
fn dropped_and_counted() {
    if !ready("dropped_and_counted") {
        return;
    }
    let mut ground = Ground::new();
    let all = Accept {
        devices: Treatment::Drop,
        setuid: Treatment::Drop,
        security: Treatment::Drop,
        trusted: Treatment::Drop,
    };
    let at = ground.check_within(within(all), &powerful(), None);
    let node = fs::symlink_metadata(at.join("null")).unwrap();
    assert!(node.is_file() && node.len() == 0, "{node:?}");
    assert_eq!(node.mode() & 0o7777, 0o666);
    let own = at.join("own");
    assert_eq!(fs::metadata(&own).unwrap().mode() & 0o7777, 0o755);
    assert!(!has(&own, "security.capability") && !has(&own, "trusted.overlay.opaque"));
    assert!(has(&own, "user.plain"));
    // Of a directory it only says who owns new files.
    assert_eq!(
        fs::metadata(at.join("shared")).unwrap().mode() & 0o7777,
        0o2775
    );
    let local = at.parent().unwrap().join(".work/data/local.json");
    let local: serde_json::Value = serde_json::from_slice(&fs::read(local).unwrap()).unwrap();
    let counted = serde_json::json!({"devices": 1, "setuid": 1, "security": 1, "trusted": 1});
    assert_eq!(local["dropped"], counted);
}

#[test]
fn refused_by_name() {
    if !ready("refused_by_name") {
        return;
    }
    let mut ground = Ground::new();
    let powerful = powerful();
    let keep = Accept::default();
    let refuse = Treatment::Refuse;
    for (last, accept, words) in [
        (
            0,
            Accept {
                devices: refuse,
                ..keep
            },
            "`devices` of its `accept`",
        ),
        (
            5,
            Accept {
                setuid: refuse,
                ..keep
            },
            "`setuid` of its `accept`",
        ),
        (
            6,
            Accept {
                security: refuse,
                ..keep
            },
            "`security` of its `accept`",
        ),
        (
            7,
            Accept {
                trusted: refuse,
                ..keep
            },
            "`trusted` of its `accept`",
        ),
    ] {
        let upto = &powerful[..=OWN.len() + last];
        ground.check_within(within(accept), upto, Some(words));
        ground.check_within(within(keep), upto, None);
    }
    // Clearing bits is never refused.
    let plain = Command::Chmod {
        path: b"own",
        mode: 0o755,
    };
    let setuid = Accept {
        setuid: refuse,
        ..keep
    };
    ground.check_within(within(setuid), &[&OWN[..], &[plain]].concat(), None);
}
