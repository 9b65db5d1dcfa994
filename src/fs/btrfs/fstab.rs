//! What /etc/fstab says of a live path: which filesystem and which subvolume are meant there, mounted or not (fstab(5)).
//!
//! A path that is a mount of its own leads, while it is not mounted, to whatever filesystem lies below it. Points stored
//! there would be on the wrong filesystem and found by nobody. So the line that names the path decides.
//!
//! Promise: a line that cannot be understood is skipped, never misread; of lines for one path the last counts, as for
//! `mount -a`. Reads only; a crash leaves nothing. It deliberately does not know mount units of systemd other than those
//! that systemd itself makes of fstab.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use uuid::Uuid;

use super::mountinfo::unescape;
use crate::fs::Result;

/// Where the file is.
pub const FSTAB: &str = "/etc/fstab";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `UUID=...`, `LABEL=...`, `/dev/...` as it is written.
    pub source: OsString,
    pub point: PathBuf,
    pub kind: String,
    pub options: Vec<String>,
    /// The file it stands in, for people.
    pub file: PathBuf,
}

/// All lines, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fstab(Vec<Entry>);

impl Fstab {
    /// A file that is not there has no lines.
    pub fn read(path: &Path) -> Result<Fstab> {
        match std::fs::read(path) {
            Ok(text) => Ok(parse(&text, path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Fstab::default()),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The line for `path` itself or for the nearest directory above it.
    pub fn covering(&self, path: &Path) -> Option<&Entry> {
        let above = self.0.iter().filter(|entry| path.starts_with(&entry.point));
        above.max_by_key(|entry| entry.point.as_os_str().len())
    }
}

impl Entry {
    pub fn has(&self, word: &str) -> bool {
        self.options.iter().any(|option| option == word)
    }

    /// The value of `name=value`; of several the last.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter().rev();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it mounts a subvolume of a btrfs filesystem.
    pub fn is_btrfs(&self) -> bool {
        matches!(self.kind.as_str(), "btrfs" | "auto")
            && !self.has("bind")
            && !self.has("rbind")
            && !self.has("x-gvfs-bind")
    }

    /// The subvolume from the top level by `subvol=`; none where only a number, or nothing, says which is meant.
    pub fn subvolume(&self) -> Option<PathBuf> {
        let path = Path::new(self.value("subvol")?);
        // Component by component: slashes at both ends and in twos are as good as none.
        let parts = path
            .components()
            .filter(|part| matches!(part, std::path::Component::Normal(_)));
        Some(parts.collect())
    }

    /// `subvolid=N`.
    pub fn subvolume_id(&self) -> Option<u64> {
        self.value("subvolid")?.parse().ok()
    }

    /// The device that is meant. A filesystem that is in use is asked of the kernel,
    /// then udev's links are looked at, and blkid(8) is run where there is no udev.
    pub fn device(&self) -> Result<PathBuf> {
        let shown = self.source.to_string_lossy();
        let missing = || {
            anyhow!(
                "{} says that {} is on {shown}, which is not here",
                self.file.display(),
                self.point.display()
            )
        };
        let Some((tag, value)) = self.tag() else {
            let path = PathBuf::from(&self.source);
            return path.canonicalize().map_err(|_| missing());
        };
        let known = match tag {
            b"LABEL" => labelled(value),
            _ => self.fsid(),
        };
        if let Some(device) = known.and_then(in_use) {
            return Ok(device);
        }
        let dir = match tag {
            b"UUID" => "by-uuid",
            b"LABEL" => "by-label",
            b"PARTUUID" => "by-partuuid",
            b"PARTLABEL" => "by-partlabel",
            _ => return Err(missing()),
        };
        let link = Path::new("/dev/disk").join(dir).join(udev_escaped(value));
        if let Ok(device) = link.canonicalize() {
            return Ok(device);
        }
        // Without its cache, which may name a device that holds something else by now.
        let found = Command::new("blkid")
            .args(["-c", "/dev/null", "-l", "-o", "device", "-t"])
            .arg([OsStr::from_bytes(tag), OsStr::from_bytes(value)].join(OsStr::new("=")))
            .stdin(Stdio::null())
            .output()
            .context("run blkid")?;
        let path = found.stdout.strip_suffix(b"\n").unwrap_or(&found.stdout);
        if !found.status.success() || path.is_empty() {
            return Err(missing());
        }
        Path::new(OsStr::from_bytes(path))
            .canonicalize()
            .map_err(|_| missing())
    }

    /// The filesystem id it names, where it does.
    pub fn fsid(&self) -> Option<Uuid> {
        let (tag, value) = self.tag()?;
        (tag == b"UUID")
            .then(|| Uuid::try_parse_ascii(value).ok())
            .flatten()
    }

    fn tag(&self) -> Option<(&[u8], &[u8])> {
        let bytes = self.source.as_bytes();
        let at = bytes.iter().position(|&b| b == b'=')?;
        let (tag, value) = (&bytes[..at], &bytes[at + 1..]);
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        (!tag.contains(&b'/')).then_some((tag, quoted.unwrap_or(value)))
    }

    /// Its options with the subvolume named by path, `relative` from the top level, and `more` where it is not there yet.
    pub fn options_naming(&self, relative: &Path, more: &[&str]) -> OsString {
        let kept = self.options.iter().map(String::as_str);
        let kept = kept.filter(|option| {
            *option != "defaults"
                && !option.starts_with("subvol=")
                && !option.starts_with("subvolid=")
        });
        let mut words: Vec<&str> = kept.collect();
        words.extend(more.iter().filter(|word| !self.has(word)));
        let mut options = OsString::new();
        for word in words {
            options.push(word);
            options.push(",");
        }
        options.push("subvol=/");
        options.push(relative);
        options
    }
}

/// A line of fstab that mounts the subvolume at `relative` on `point`; blanks are escaped.
pub fn line(source: &OsStr, point: &Path, options: &OsStr) -> String {
    let fields = [source, point.as_os_str(), OsStr::new("btrfs"), options];
    let fields = fields.map(|field| escaped(&field.to_string_lossy()));
    format!("{} 0 0", fields.join(" "))
}

fn escaped(field: &str) -> String {
    field
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}

/// A device of a btrfs filesystem that is mounted somewhere (kernel: fs/btrfs/sysfs.c, devices/<name>).
fn in_use(fsid: Uuid) -> Option<PathBuf> {
    let devices = std::fs::read_dir(format!("/sys/fs/btrfs/{fsid}/devices")).ok()?;
    let mut paths = devices
        .flatten()
        .map(|entry| Path::new("/dev").join(entry.file_name()));
    paths.find(|path| path.exists())
}

/// The btrfs filesystem with that label, where just one that is mounted somewhere has it.
fn labelled(label: &[u8]) -> Option<Uuid> {
    let filesystems = std::fs::read_dir("/sys/fs/btrfs").ok()?.flatten();
    let mut found = filesystems.filter_map(|entry| {
        let fsid = Uuid::try_parse(entry.file_name().to_str()?).ok()?;
        let text = std::fs::read(entry.path().join("label")).ok()?;
        let is_it = text.strip_suffix(b"\n").unwrap_or(&text) == label;
        is_it.then_some(fsid)
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// What udev makes of a label in the name of a link: all but plain characters as `\xNN` (util_replace_chars, libudev).
fn udev_escaped(value: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte) || byte >= 0x80 {
            name.push(byte);
        } else {
            name.extend(format!("\\x{byte:02x}").into_bytes());
        }
    }
    OsString::from_vec(name)
}

fn parse(text: &[u8], file: &Path) -> Fstab {
    let lines = text.split(|&b| b == b'\n');
    let mut entries: Vec<Entry> = Vec::new();
    for entry in lines.filter_map(|line| parse_line(line, file)) {
        entries.retain(|earlier| earlier.point != entry.point);
        entries.push(entry);
    }
    Fstab(entries)
}

fn parse_line(line: &[u8], file: &Path) -> Option<Entry> {
    let mut fields = line
        .split(|b| matches!(b, b' ' | b'\t' | b'\r'))
        .filter(|field| !field.is_empty());
    let source = fields.next().filter(|field| !field.starts_with(b"#"))?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let options = match fields.next() {
        Some(options) => String::from_utf8(unescape(options)).ok()?,
        None => "defaults".to_owned(),
    };
    point.is_absolute().then(|| Entry {
        source: OsString::from_vec(unescape(source)),
        // A slash at the end is no difference.
        point: point.components().collect(),
        kind,
        options: options.split(',').map(str::to_owned).collect(),
        file: file.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = br"# /etc/fstab: static file system information.
UUID=0a1b2c3d-0000-0000-0000-000000000001 / btrfs subvol=@,noatime 0 0
  LABEL=data	/srv/www/	btrfs	defaults,subvol=/@www//	0 0
/dev/vdb /srv/a\040b btrfs subvolid=259
UUID=x none swap sw 0 0
/dev/vdc /srv/two btrfs subvol=first 0 0
/srv/real /srv/bound none bind 0 0
/dev/vdd /srv/two auto noauto,subvolid=7,subvol=a\040b
short /srv/short
relative srv btrfs
";

    fn check(path: &str, point: &str, subvolume: Option<&str>, id: Option<u64>) {
        let fstab = parse(SAMPLE, Path::new("/etc/fstab"));
        let entry = fstab.covering(Path::new(path)).unwrap();
        assert_eq!(entry.point, Path::new(point), "{path}");
        assert_eq!(
            entry.subvolume(),
            subvolume.map(PathBuf::from),
            "{path} by name"
        );
        assert_eq!(entry.subvolume_id(), id, "{path} by number");
    }

    #[test]
    fn the_nearest_and_last_line_counts() {
        check("/home", "/", Some("@"), None);
        check("/srv/wwwx", "/", Some("@"), None);
        check("/srv/www", "/srv/www", Some("@www"), None);
        check("/srv/www/site", "/srv/www", Some("@www"), None);
        check("/srv/a b", "/srv/a b", None, Some(259));
        check("/srv/two", "/srv/two", Some("a b"), Some(7));
        check("/srv/bound/x", "/srv/bound", None, None);
        check("/srv/short", "/", Some("@"), None);
    }

    #[test]
    fn words_of_a_line() {
        let fstab = parse(SAMPLE, Path::new("/etc/fstab"));
        let is_btrfs = |path: &str| fstab.covering(Path::new(path)).unwrap().is_btrfs();
        assert!(is_btrfs("/srv/two") && is_btrfs("/srv/www"));
        assert!(!is_btrfs("/srv/bound"));
        let two = fstab.covering(Path::new("/srv/two")).unwrap();
        assert!(two.has("noauto") && !two.has("nofail"));
        assert_eq!(
            two.options_naming(Path::new("@two"), &["nofail", "noauto"]),
            "noauto,nofail,subvol=/@two"
        );
        let www = fstab.covering(Path::new("/srv/www")).unwrap();
        assert_eq!(www.options_naming(Path::new("a b"), &[]), "subvol=/a b");
        let root = fstab.covering(Path::new("/")).unwrap();
        assert_eq!(root.fsid().map(|id| id.as_u128() & 0xff), Some(1));
        assert_eq!(
            line(OsStr::new("LABEL=x"), Path::new("/a b"), OsStr::new("ro")),
            r"LABEL=x /a\040b btrfs ro 0 0"
        );
    }

    #[test]
    fn devices() {
        let source = |source: &str| Entry {
            source: source.into(),
            ..parse(SAMPLE, Path::new("/etc/fstab")).0[0].clone()
        };
        assert_eq!(
            source("/dev/./null").device().unwrap(),
            Path::new("/dev/null")
        );
        for absent in ["/dev/no-such", "UUID=no-such", "LABEL=\"no such\"", "x=y"] {
            let error = source(absent).device().unwrap_err().to_string();
            assert!(error.ends_with("which is not here"), "{error}");
        }
        let tagged = source("LABEL=\"my data\"");
        assert_eq!(tagged.tag(), Some((&b"LABEL"[..], &b"my data"[..])));
        assert_eq!(udev_escaped(b"my/data:1"), r"my\x2fdata:1");
    }
}
