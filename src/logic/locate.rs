//! Which dataset a path belongs to, and its path inside.
//!
//! Promise: pure and lexical: no link is followed. Of datasets whose live paths lie in one another the innermost comes first; the
//! outer ones follow, since they may have held the path before the inner one was made. What is given back is a plain relative
//! path, never empty, without `.` and `..`.

use std::path::{Component, Path, PathBuf};

use super::name::{DatasetName, RoleName};

/// A dataset and where it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub role: RoleName,
    pub dataset: DatasetName,
    /// Absolute.
    pub live: PathBuf,
}

/// A path in a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub role: RoleName,
    pub dataset: DatasetName,
    pub inner: PathBuf,
    /// Where it is, or was, live.
    pub live: PathBuf,
}

/// Why a path is in no dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Astray {
    #[error("it is in no dataset of this node")]
    Outside,
    /// `role/dataset`.
    #[error("it is the whole dataset {0}")]
    Whole(String),
    #[error("it leads out of where it begins")]
    Upwards,
}

/// Every dataset that the path may belong to, the likeliest first. An absolute path lies below a live path, a relative one is
/// inside a dataset. `role` and `dataset` narrow the choice.
pub fn locate(
    homes: &[Home],
    path: &Path,
    role: Option<&RoleName>,
    dataset: Option<&DatasetName>,
) -> Result<Vec<Located>, Astray> {
    let path = plain(path).ok_or(Astray::Upwards)?;
    let chosen = homes.iter().filter(|home| {
        role.is_none_or(|role| *role == home.role)
            && dataset.is_none_or(|dataset| *dataset == home.dataset)
    });
    let mut whole = None;
    let mut found = Vec::new();
    for home in chosen {
        let live = plain(&home.live).unwrap_or_else(|| home.live.clone());
        let inner = match path.is_absolute() {
            true => path.strip_prefix(&live).ok(),
            false => Some(path.as_path()),
        };
        let Some(inner) = inner else { continue };
        if inner.as_os_str().is_empty() {
            whole = Some(format!("{}/{}", home.role, home.dataset));
            continue;
        }
        found.push(Located {
            role: home.role.clone(),
            dataset: home.dataset.clone(),
            inner: inner.to_owned(),
            live: live.join(inner),
        });
    }
    // The innermost has the shortest rest.
    if path.is_absolute() {
        found.sort_by_key(|located| located.inner.components().count());
    }
    match (found.is_empty(), whole) {
        (_, Some(whole)) => Err(Astray::Whole(whole)),
        (true, None) => Err(Astray::Outside),
        (false, None) => Ok(found),
    }
}

/// Without `.` and `..`; none where these lead above the beginning of a relative path.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match plain.components().next_back() {
                Some(Component::Normal(_)) => {
                    plain.pop();
                }
                Some(_) => {}
                None => return None,
            },
            part => plain.push(part),
        }
    }
    Some(plain)
}

/// Whether a relative path is one that may be looked up in a dataset, as a peer may have said it.
pub fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a path has characters of a pattern in it.
pub fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes() -> Vec<Home> {
        let home = |role: &str, dataset: &str, live: &str| Home {
            role: RoleName::parse(role).unwrap(),
            dataset: DatasetName::parse(dataset).unwrap(),
            live: live.into(),
        };
        vec![
            home("web", "files", "/srv/web"),
            home("web", "uploads", "/srv/web/var/uploads"),
            home("mail", "spool", "/srv/mail/"),
        ]
    }

    fn check(path: &str, narrow: (&str, &str), expected: &str) {
        let role = RoleName::parse(narrow.0).ok();
        let dataset = DatasetName::parse(narrow.1).ok();
        let found = match locate(&homes(), Path::new(path), role.as_ref(), dataset.as_ref()) {
            Ok(found) => {
                let words = found
                    .iter()
                    .map(|l| format!("{}/{}:{}", l.role, l.dataset, l.inner.display()));
                words.collect::<Vec<_>>().join(" ")
            }
            Err(why) => why.to_string(),
        };
        assert_eq!(found, expected, "{path:?} {narrow:?}");
    }

    #[test]
    fn paths() {
        let any = ("", "");
        check("/srv/web/a/b", any, "web/files:a/b");
        check("/srv/web/./a/../b", any, "web/files:b");
        check(
            "/srv/web/var/uploads/x",
            any,
            "web/uploads:x web/files:var/uploads/x",
        );
        check(
            "/srv/web/var/uploads/x",
            ("", "files"),
            "web/files:var/uploads/x",
        );
        check("/srv/mail/x", any, "mail/spool:x");
        check(
            "/srv/mail/x",
            ("web", ""),
            "it is in no dataset of this node",
        );
        check("/srv/webber/x", any, "it is in no dataset of this node");
        check("/etc/passwd", any, "it is in no dataset of this node");
        check("/srv/web", any, "it is the whole dataset web/files");
        check(
            "/srv/web/var/uploads/",
            any,
            "it is the whole dataset web/uploads",
        );
        check("x/y", ("web", ""), "web/files:x/y web/uploads:x/y");
        check("x/../y", ("mail", ""), "mail/spool:y");
        check("../y", ("mail", ""), "it leads out of where it begins");
        check("/../srv/web/x", any, "web/files:x");
        check("", ("mail", ""), "it is the whole dataset mail/spool");
    }

    #[test]
    fn what_a_peer_may_say() {
        let check = |path: &str, ok: bool| assert_eq!(is_plain(Path::new(path)), ok, "{path:?}");
        check("a/b", true);
        check("a/*.txt", true);
        for bad in ["", "/a", "../a", "a/../b", "./a", "."] {
            check(bad, false);
        }
        assert!(is_pattern(Path::new("a/*.txt")) && !is_pattern(Path::new("a/b")));
    }
}
