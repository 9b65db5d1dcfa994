//! Whether two trees are the same, told by tar and find, not by our code.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// Panics with the first difference.
pub fn assert_same(left: &Path, right: &Path, what: &str) {
    if let Some(difference) = difference(left, right) {
        panic!(
            "{what}: {} and {} differ:\n{difference}",
            left.display(),
            right.display()
        );
    }
}

/// The first difference, for people; none when the trees are the same. A hole and zeros are the same: see [`holes_differ`].
pub fn difference(left: &Path, right: &Path) -> Option<String> {
    lines_differ(&listing(left), &listing(right))
        .or_else(|| lines_differ(&links(left), &links(right)))
        .or_else(|| (archive(left) != archive(right)).then(|| contents(left, right)))
}

fn output<S: AsRef<OsStr>>(program: &str, dir: &Path, args: &[S]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} in {}: {}",
        dir.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Every object: name, type, mode, owner, size, links, time of change of content, target.
fn listing(dir: &Path) -> Vec<Vec<u8>> {
    let format = "%p\t%y %m %U:%G %s links %n at %T@ -> %l\\0";
    sorted(&output("find", dir, &[".", "-printf", format]))
}

/// The first difference to what `btrfs receive` made of the same stream; none when there is none. Left out is what it gets
/// wrong: a new file first stands in the top directory under another name and inherits its default ACL there, which the
/// stream does not know to take away (so ACLs, and modes, whose group bits are the mask); and the top's own times.
pub fn differs_from_progs(theirs: &Path, ours: &Path) -> Option<String> {
    let listing = |dir: &Path| {
        let format = "%p\t%y %U:%G %s links %n at %T@ -> %l\\0";
        sorted(&output(
            "find",
            dir,
            &[".", "-mindepth", "1", "-printf", format],
        ))
    };
    let content = |dir: &Path| {
        let names = sorted(&output("find", dir, &[".", "-type", "f", "-print0"]));
        let lines = names.into_iter().map(|name| {
            let data = std::fs::read(dir.join(OsStr::from_bytes(&name))).unwrap();
            [
                &name,
                &b" holds "[..],
                blake3::hash(&data).to_string().as_bytes(),
            ]
            .concat()
        });
        lines.collect::<Vec<_>>()
    };
    lines_differ(&listing(theirs), &listing(ours))
        .or_else(|| lines_differ(&links(theirs), &links(ours)))
        .or_else(|| lines_differ(&content(theirs), &content(ours)))
}

/// Which names are the same file: every name of every linked file beside its first name.
fn links(dir: &Path) -> Vec<Vec<u8>> {
    let names = output(
        "find",
        dir,
        &[
            ".", "-links", "+1", "!", "-type", "d", "-printf", "%i %p\\0",
        ],
    );
    let mut first = std::collections::BTreeMap::new();
    sorted(&names)
        .into_iter()
        .map(|line| {
            let space = line.iter().position(|byte| *byte == b' ').unwrap();
            let (inode, name) = (line[..space].to_vec(), line[space + 1..].to_vec());
            (inode, name)
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .map(|(inode, name)| {
            let first = first.entry(inode).or_insert_with(|| name.clone());
            [&name[..], b" is ", &first[..]].concat()
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn sorted(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == 0)
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    lines.sort();
    lines
}

fn lines_differ(left: &[Vec<u8>], right: &[Vec<u8>]) -> Option<String> {
    let show = |line: Option<&Vec<u8>>| {
        line.map_or("(nothing)".into(), |line| line.escape_ascii().to_string())
    };
    (0..left.len().max(right.len()))
        .find(|i| left.get(*i) != right.get(*i))
        .map(|i| format!("  {}\n  {}", show(left.get(i)), show(right.get(i))))
}

/// The first file that is NOCOW, immutable or append-only on one side alone, as lsattr tells it.
pub fn flags_differ(left: &Path, right: &Path) -> Option<String> {
    lines_differ(&flags(left), &flags(right))
}

/// Every file and directory: name and flags.
fn flags(dir: &Path) -> Vec<Vec<u8>> {
    let kinds = ["(", "-type", "f", "-o", "-type", "d", ")", "-print0"];
    let names = sorted(&output("find", dir, &[&["."][..], &kinds].concat()));
    let mut found = Vec::new();
    for names in names.chunks(200) {
        let args: Vec<&OsStr> = ["-d", "--"]
            .map(OsStr::new)
            .into_iter()
            .chain(names.iter().map(|name| OsStr::from_bytes(name)))
            .collect();
        let text = output("lsattr", dir, &args);
        let mut rest = &text[..];
        for name in names {
            // Names hold any bytes, so only the name asked for tells where its line ends.
            let space = rest.iter().position(|byte| *byte == b' ').unwrap();
            let (has, tail) = rest.split_at(space);
            rest = tail[1..].strip_prefix(&name[..]).unwrap();
            rest = rest.strip_prefix(b"\n").unwrap();
            let has: Vec<u8> = has.iter().filter(|c| b"Cia".contains(c)).copied().collect();
            found.push([name, &b"\t"[..], &has].concat());
        }
    }
    found
}

/// All content and metadata that tar carries: data, extended attributes, ACLs. Its own search for holes goes by the blocks a
/// file occupies, which preallocation changes: see `holes_differ`.
fn archive(dir: &Path) -> Vec<u8> {
    let args = [
        "--sort=name",
        "--numeric-owner",
        "--acls",
        "--xattrs",
        "--xattrs-include=*",
        "--format=posix",
        "--pax-option=delete=atime,delete=ctime",
        "--warning=none",
        "-cf",
        "-",
        ".",
    ];
    output("tar", dir, &args)
}

/// tar says that they differ; this finds where.
fn contents(left: &Path, right: &Path) -> String {
    let facts = |dir: &Path| {
        let mut facts = blocks(&output(
            "getfattr",
            dir,
            &["-R", "-h", "-d", "-m", "-", "."],
        ));
        facts.extend(blocks(&output("getfacl", dir, &["-R", "-P", "-n", "."])));
        facts.sort();
        facts
    };
    if let Some(difference) = lines_differ(&facts(left), &facts(right)) {
        return difference;
    }
    for line in sorted(&output("find", left, &[".", "-type", "f", "-print0"])) {
        let name = OsStr::from_bytes(&line);
        let (a, b) = (left.join(name), right.join(name));
        if std::fs::read(&a).unwrap() != std::fs::read(&b).unwrap() {
            return format!("  data of {}", line.escape_ascii());
        }
    }
    "  tar alone knows where".into()
}

/// The first file whose holes lie elsewhere. A stream does not carry all of them (version 1 none, version 2 not those that
/// were preallocated), so what is received is compared with what another receiver makes of the same stream.
pub fn holes_differ(left: &Path, right: &Path) -> Option<String> {
    let names = sorted(&output("find", left, &[".", "-type", "f", "-print0"]));
    names.into_iter().find_map(|line| {
        let name = OsStr::from_bytes(&line);
        let (a, b) = (map(&left.join(name)), map(&right.join(name)));
        let line = line.escape_ascii();
        (a != b).then(|| format!("  holes of {line}\n  data at {a:?}\n  data at {b:?}"))
    })
}

fn blocks(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![Vec::new()];
    for line in text.split(|byte| *byte == b'\n') {
        match found.last_mut() {
            Some(last) if !line.is_empty() => last.extend([line, b"; "].concat()),
            _ => found.push(Vec::new()),
        }
    }
    found
}

/// Where a file has data, as the filesystem tells it.
fn map(path: &Path) -> Vec<(u64, u64)> {
    use rustix::fs::SeekFrom;
    let file = std::fs::File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push((start, at));
    }
    found
}
