//! Passwords of servers, from where the config says that they are.
//!
//! Promise: a file that others than its owner may read or write is refused, with what to do. The password is wiped from memory
//! when it is dropped, and is in no error.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use crate::error::{Code, Failure};
use crate::logic::dump::Secret;

/// Largest password file, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// The password. Blocks for a read of a small file.
pub fn read(secret: &Secret) -> Result<Zeroizing<String>> {
    match secret {
        Secret::Env(name) => {
            let word = std::env::var(name).ok().filter(|word| !word.is_empty());
            word.map(Zeroizing::new).ok_or_else(|| {
                let what = format!("find the password: the daemon's environment has no {name}");
                let hint = "set it in a file named by EnvironmentFile= in a drop-in of standin.service, and restart the daemon";
                Failure::new(Code::Refused, what).hint(hint).into()
            })
        }
        Secret::File(path) => {
            let shown = path.display();
            let reading = || format!("read the password file {shown}");
            let mut file = File::open(path).with_context(reading)?;
            let facts = file.metadata().with_context(reading)?;
            let own = facts.uid() == 0 || facts.uid() == rustix::process::geteuid().as_raw();
            if facts.mode() & 0o077 != 0 || !own {
                let what = format!(
                    "use the password file {shown}: others than root may read or change it"
                );
                let hint = format!("chown root: {shown}; chmod 600 {shown}");
                return Err(Failure::new(Code::Refused, what).hint(hint).into());
            }
            let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
            file.by_ref()
                .take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .with_context(reading)?;
            let word = text.lines().next().unwrap_or_default();
            if word.is_empty() {
                let what = format!("use the password file {shown}: its first line is empty");
                let hint = "write the password into its first line";
                return Err(Failure::new(Code::Refused, what).hint(hint).into());
            }
            Ok(Zeroizing::new(word.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let check = |text: &str, mode: u32, expected: Result<&str, &str>| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&Secret::File(path.clone()));
            match (read, expected) {
                (Ok(word), Ok(expected)) => assert_eq!(*word, expected),
                (Err(error), Err(part)) => {
                    let text = format!("{error:#}");
                    assert!(text.contains(part) && !text.contains("s3cret"), "{text}");
                }
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        };
        check("s3cret\nmore\n", 0o600, Ok("s3cret"));
        check("s3cret", 0o400, Ok("s3cret"));
        check("s3cret", 0o640, Err("others than root"));
        check("s3cret", 0o602, Err("others than root"));
        check("\ns3cret", 0o600, Err("first line is empty"));
        let error = super::read(&Secret::Env("STANDIN_NO_SUCH".to_owned())).unwrap_err();
        assert!(error.to_string().contains("has no STANDIN_NO_SUCH"));
    }
}
