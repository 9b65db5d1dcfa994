//! Seeded files on this machine's disk: templates that are read, files that are looked at and written.
//!
//! Promise: a template is read from its dataset and nowhere else: what comes from a peer, or lies where users write, leads to
//! no other file by a link. A file is written beside, synced and renamed, so that a reader finds the old text or the new one,
//! whole; a crash leaves one of the two, and at most a `.NAME.standin-new` that the next writing takes away.
//!
//! It deliberately does not know what templates mean, nor whether a file may be written: `logic::seed` does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Code, Failure};
use crate::logic::seed::{Facts, Present, TEXT_BYTES_MAX};

pub mod memory;
pub mod worker;

/// Permission bits of a file that is new, where the configuration does not say.
const MODE_DEFAULT: u32 = 0o644;

/// Permission bits, without the set-id and sticky ones.
const MODE_BITS: u32 = 0o777;

/// The hash by which texts are compared.
pub fn hash(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

/// Reads a template at `path` below `root`. Links are followed as long as they stay below.
pub fn template(root: &Path, path: &Path) -> Result<String> {
    let top = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, top, Mode::empty())
        .with_context(|| format!("open {}", root.display()))?;
    let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let opened = rustix::fs::openat2(&top, path, how, Mode::empty(), within);
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::XDEV) => {
            bail!("open it: it, or a directory on the way, is a link that leads out of the dataset")
        }
        Err(Errno::NOENT) => bail!("open it: it is not there"),
        Err(error) => return Err(anyhow!(error)).context("open it"),
    };
    if !file.metadata().context("look at it")?.is_file() {
        bail!("read it: it is no file");
    }
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .context("read it")?;
    if bytes.len() > TEXT_BYTES_MAX {
        bail!("read it: it is longer than {TEXT_BYTES_MAX} bytes");
    }
    String::from_utf8(bytes).context("read it: it is not UTF-8")
}

/// What is at the place of a seeded file, and its text.
pub fn look(to: &Path) -> Result<(Present, Vec<u8>)> {
    let facts = match std::fs::symlink_metadata(to) {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Present::Nothing, Vec::new()));
        }
        Err(error) => return Err(error).with_context(|| format!("look at {}", to.display())),
    };
    if facts.is_symlink() {
        let target = std::fs::read_link(to).unwrap_or_default();
        let what = format!("a symbolic link to {}", target.display());
        return Ok((Present::Other(what), Vec::new()));
    }
    if !facts.is_file() {
        let what = if facts.is_dir() {
            "a directory"
        } else {
            "no regular file"
        };
        return Ok((Present::Other(what.to_owned()), Vec::new()));
    }
    let text = text_of(to).with_context(|| format!("read {}", to.display()))?;
    let facts = Facts {
        hash: hash(&text),
        mode: facts.mode() & MODE_BITS,
        uid: facts.uid(),
        gid: facts.gid(),
    };
    Ok((Present::File(facts), text))
}

/// No link is followed, and no more is read than a seeded file can hold: what is longer is not ours anyhow.
fn text_of(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits() as i32);
    let mut text = Vec::new();
    let most = TEXT_BYTES_MAX as u64 + 1;
    options.open(path)?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// Where text is written before it takes its name.
fn beside(to: &Path) -> Result<PathBuf> {
    let name = to.file_name().context("find the name of the file")?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(".standin-new");
    Ok(to.with_file_name(beside))
}

/// Puts a text at `to`. Mode and owner: as given, else as the file there has them.
pub fn write(
    to: &Path,
    text: &[u8],
    present: &Present,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let dir = to.parent().context("find the directory of the file")?;
    if !dir.is_dir() {
        let what = format!(
            "write {}: there is no directory {}",
            to.display(),
            dir.display()
        );
        let hint = format!("make it: mkdir -p {}", dir.display());
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    let (was, theirs) = match present {
        Present::File(facts) => (Some(facts.mode), Some((facts.uid, facts.gid))),
        Present::Nothing | Present::Other(_) => (None, None),
    };
    let mode = mode.or(was).unwrap_or(MODE_DEFAULT);
    let owner = owner.or(theirs);
    let beside = beside(to)?;
    let written = (|| {
        // What a crash left.
        let _ = std::fs::remove_file(&beside);
        let mut options = File::options();
        // Nobody else reads it before it has its owner.
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(text)?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&beside, to)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|error: std::io::Error| {
        // It is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
        anyhow!(error).context(format!("write {}", to.display()))
    })
}

/// Gives a file that is right otherwise its mode and owner.
pub fn dress(to: &Path, mode: Option<u32>, owner: Option<(u32, u32)>) -> Result<()> {
    let what = || format!("set mode and owner of {}", to.display());
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let file = options.open(to).with_context(what)?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).with_context(what)?;
    }
    if let Some(mode) = mode {
        let mode = std::fs::Permissions::from_mode(mode);
        file.set_permissions(mode).with_context(what)?;
    }
    file.sync_all().with_context(what)
}

/// Keeps what is at `to` under a name of its own, NAME.standin-was-DATE; where. Nothing takes its place yet.
pub fn keep(to: &Path, now: Timestamp) -> Result<PathBuf> {
    let name = to.file_name().context("find the name of the file")?;
    let date = now.strftime("%Y%m%dT%H%M%SZ");
    for number in 0..100 {
        let mut kept = name.to_owned();
        match number {
            0 => kept.push(format!(".standin-was-{date}")),
            _ => kept.push(format!(".standin-was-{date}-{number}")),
        }
        let kept = to.with_file_name(kept);
        // Fails where the name is taken, which a rename would not.
        match std::fs::hard_link(to, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("keep {} as {}", to.display(), kept.display()));
            }
        }
    }
    bail!("keep {}: every name for it is taken", to.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn templates_that_lead_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("a/t"), "text").unwrap();
        std::fs::write(root.join("bytes"), b"\xff").unwrap();
        std::fs::write(root.join("long"), vec![b'x'; TEXT_BYTES_MAX + 1]).unwrap();
        symlink("a/t", root.join("inside")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink("..", root.join("a/out")).unwrap();
        symlink("/", root.join("top")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let check = |path: &str, expected: &str| {
            let told = match template(&root, Path::new(path)) {
                Ok(text) => text,
                Err(error) => format!("{error:#}"),
            };
            assert!(told.starts_with(expected), "{path}: {told}");
        };
        check("a/t", "text");
        check("inside", "text");
        check("a/out/a/t", "text");
        check(
            "a/out/../secret",
            "open it: it, or a directory on the way, is a link",
        );
        check(
            "absolute",
            "open it: it, or a directory on the way, is a link",
        );
        check("up", "open it: it, or a directory on the way, is a link");
        check(
            "top/etc/passwd",
            "open it: it, or a directory on the way, is a link",
        );
        check("loop", "open it: ");
        check("none", "open it: it is not there");
        check("a/b", "read it: it is no file");
        check("bytes", "read it: it is not UTF-8");
        check("long", "read it: it is longer than");
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RWXU).unwrap();
        check("pipe", "read it: it is no file");
    }

    #[test]
    fn files_keep_what_they_have() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.conf");
        let mode = |path: &Path| path.metadata().unwrap().mode() & MODE_BITS;
        let put = |text: &str, given| {
            let (present, _) = look(&to).unwrap();
            write(&to, text.as_bytes(), &present, given, None).unwrap();
            std::fs::read_to_string(&to).unwrap()
        };
        assert_eq!(look(&to).unwrap().0, Present::Nothing);
        assert_eq!((put("one", None).as_str(), mode(&to)), ("one", 0o644));
        dress(&to, Some(0o600), None).unwrap();
        // What a crash left is in nobody's way.
        std::fs::write(dir.path().join(".a.conf.standin-new"), "half").unwrap();
        assert_eq!((put("two", None).as_str(), mode(&to)), ("two", 0o600));
        assert_eq!(
            (put("three", Some(0o640)).as_str(), mode(&to)),
            ("three", 0o640)
        );
        let now = Timestamp::UNIX_EPOCH;
        let kept = [keep(&to, now).unwrap(), keep(&to, now).unwrap()];
        assert_eq!(put("four", None), "four");
        for (kept, name) in kept.iter().zip([
            "a.conf.standin-was-19700101T000000Z",
            "a.conf.standin-was-19700101T000000Z-1",
        ]) {
            assert_eq!(kept.file_name().unwrap(), name);
            assert_eq!(std::fs::read_to_string(kept).unwrap(), "three");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("/etc/passwd", &link).unwrap();
        let other = |path: &Path| match look(path).unwrap().0 {
            Present::Other(what) => what,
            present => panic!("{present:?}"),
        };
        assert_eq!(other(&link), "a symbolic link to /etc/passwd");
        assert_eq!(other(dir.path()), "a directory");
        let lost = dir.path().join("no/such");
        let error = write(&lost, b"x", &Present::Nothing, None, None).unwrap_err();
        assert!(
            error.to_string().contains("there is no directory"),
            "{error:#}"
        );
    }
}
