//! The user without rights as whom worker processes run, and users as whom a server wants to be spoken to.
//!
//! Promise: never root. The system user `standin` where there is one, else nobody (65534, as on every Linux); no user at all
//! where this process is not root and could not become another.
//!
//! It deliberately reads /etc/passwd only (passwd(5)): a user of a directory service could be missing just when the network
//! is.

use std::fs::File;
use std::io::Read;

/// The name looked for.
const NAME: &str = "standin";

/// nobody and nogroup.
const NOBODY: User = User {
    uid: 65534,
    gid: 65534,
};

/// Most of the file that is read, in bytes.
const PASSWD_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// Whom to become; none where this process is not root.
pub fn unprivileged() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    Some(system(NAME).unwrap_or(NOBODY))
}

/// The user of this system with a name, where there is one and it is not root.
pub fn system(name: &str) -> Option<User> {
    let mut text = Vec::new();
    // A system without that file has no user of ours in it.
    let _ = File::open("/etc/passwd").and_then(|file| {
        let mut file = file.take(PASSWD_BYTES_MAX);
        file.read_to_end(&mut text)
    });
    named(&String::from_utf8_lossy(&text), name)
}

/// A user of /etc/passwd.
pub fn account(name: &str) -> Option<User> {
    let mut text = Vec::new();
    let file = File::open("/etc/passwd").ok()?;
    file.take(PASSWD_BYTES_MAX).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, ..] = fields[..] else {
            return None;
        };
        let user = || {
            Some(User {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })
        };
        (found == name).then(user)?
    })
}

/// The number of a user: from /etc/passwd, or the number itself.
pub fn user_number(name: &str) -> Option<u32> {
    number("/etc/passwd", name)
}

/// The number of a group: from /etc/group, or the number itself.
pub fn group_number(name: &str) -> Option<u32> {
    number("/etc/group", name)
}

/// passwd(5) and group(5) have the name first and its number third.
fn number(file: &str, name: &str) -> Option<u32> {
    let mut text = Vec::new();
    let _ = File::open(file).and_then(|file| file.take(PASSWD_BYTES_MAX).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    found.or_else(|| name.parse().ok())
}

fn named(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == wanted && uid != 0 && gid != 0).then_some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passwd: &str, expected: Option<(u32, u32)>) {
        let expected = expected.map(|(uid, gid)| User { uid, gid });
        assert_eq!(named(passwd, NAME), expected, "{passwd:?}");
    }

    #[test]
    fn the_user_of_the_service() {
        check(
            "root:x:0:0::/root:/bin/sh\nstandin:x:990:991::/:/x\n",
            Some((990, 991)),
        );
        check("standin2:x:990:991::/:/x", None);
        check("standin:x:0:0::/:/x", None);
        check("standin:x:7:0::/:/x", None);
        check("standin:x:x:1::/:/x\nstandin", None);
        check("", None);
    }

    #[test]
    fn numbers_of_names() {
        assert_eq!(account("root"), Some(User { uid: 0, gid: 0 }));
        assert_eq!(account("no-such"), None);
        assert_eq!(
            (user_number("root"), group_number("root")),
            (Some(0), Some(0))
        );
        assert_eq!(
            (user_number("1234"), group_number("77")),
            (Some(1234), Some(77))
        );
        assert_eq!((user_number("no-such"), group_number("")), (None, None));
    }

    #[test]
    fn never_root() {
        assert!(unprivileged().is_none_or(|user| user.uid != 0 && user.gid != 0));
    }
}
