//! What differs between two states of a dataset, as people want it told: with sizes, without what is no difference to them,
//! and a directory that is wholly new or gone in one line.
//!
//! Promise: pure; what is folded is counted, and every figure is of what was told before folding. It deliberately does not
//! know where the two states come from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::changes::{Change, EntryKind, What};

/// How deep directories are told apart in sums.
const TOP_DEPTH: usize = 2;

/// An entry of a tree, as the filesystem has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryKind,
    /// Equal for all names of one file.
    pub inode: u64,
    /// Length of a file or of a link's target, in bytes.
    pub bytes: u64,
    /// Permission bits and file type (st_mode).
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Immutable, append-only and their like (stx_attributes).
    pub attributes: u64,
}

/// Whether the two states descend from one another, so that what is not named is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    Related,
    /// Everything is named: files that look the same in every respect are taken for the same.
    Strangers,
}

/// One difference. Paths are bytes, relative to the top of the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub what: What,
    /// Where it is; of what was removed, where it was.
    pub path: Vec<u8>,
    /// Where it was, when that is another path; of a further name of a file, the first one.
    pub from: Option<Vec<u8>>,
    pub kind: Option<EntryKind>,
    /// Of what is there now.
    pub inode: Option<u64>,
    /// What it was, when that is another kind.
    pub was: Option<EntryKind>,
    /// Of a file, in bytes, before and after.
    pub old_bytes: Option<u64>,
    pub new_bytes: Option<u64>,
    /// File data in it that only the newer one holds, in bytes.
    pub written: u64,
    /// Whether its content changed (of what was renamed).
    pub content: bool,
    /// Owner, mode or attributes changed.
    pub metadata: bool,
    /// When, in seconds since 1970.
    pub at: Option<i64>,
    /// What was folded into it: it is a directory that is wholly new, or gone.
    pub inside: Option<Sum>,
}

/// How much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
}

/// Sums of differences by what became of the entries. Bytes are the sizes of what was added or removed, and what was written to
/// all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub added: Sum,
    pub removed: Sum,
    pub changed: Sum,
    pub renamed: Sum,
    pub metadata: Sum,
}

impl Difference {
    /// None where it is no difference to people: a file that was only read, or (between strangers) one that looks the same.
    pub fn of(
        change: Change,
        old: Option<Entry>,
        new: Option<Entry>,
        kinship: Kinship,
    ) -> Option<Difference> {
        if let (Some(old), Some(new)) = (old, new) {
            let only_read = change.what == What::Metadata && !change.metadata && !change.replaced;
            let named_anyway = kinship == Kinship::Strangers
                && change.from.is_none()
                && matches!(change.what, What::Changed | What::Metadata);
            // The time of a directory follows its entries, which are told themselves.
            let timeless = named_anyway && new.kind == EntryKind::Directory;
            if (only_read || named_anyway) && alike(old, new, timeless) {
                return None;
            }
        }
        let kind = new.or(old).map(|entry| entry.kind).or(change.kind);
        let was = old.map(|entry| entry.kind).filter(|was| Some(*was) != kind);
        let size = |entry: Option<Entry>| {
            let file = entry.filter(|entry| entry.kind == EntryKind::File);
            file.map(|entry| entry.bytes)
        };
        let content = kind != Some(EntryKind::Directory)
            && (change.resized.is_some() || !change.written.is_empty() || change.replaced);
        Some(Difference {
            what: change.what,
            old_bytes: size(old),
            new_bytes: size(new),
            // Extents end on block boundaries, files do not.
            written: size(new).map_or(change.bytes, |size| change.bytes.min(size)),
            path: change.path,
            from: change.from,
            kind,
            inode: new.map(|entry| entry.inode),
            was,
            content,
            metadata: change.metadata,
            at: change.at,
            inside: None,
        })
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Some(EntryKind::Directory)
    }

    /// A further name of a file that is told under its first one.
    fn is_further_name(&self) -> bool {
        self.what == What::Added && self.from.is_some()
    }

    fn sum(&self) -> Sum {
        let bytes = match self.what {
            What::Added if self.is_further_name() => 0,
            What::Added => self.new_bytes.unwrap_or(0),
            What::Removed => self.old_bytes.unwrap_or(0),
            What::Changed | What::Renamed | What::Metadata => self.written,
        };
        Sum {
            files: u64::from(!self.is_directory()),
            directories: u64::from(self.is_directory()),
            bytes,
        }
    }

    /// Whether it has to do with `path` or what is below it; a directory above it that came, went or moved has.
    pub fn concerns(&self, path: &[u8]) -> bool {
        let moves = matches!(self.what, What::Added | What::Removed | What::Renamed);
        let names = [Some(&self.path), self.from.as_ref()].into_iter().flatten();
        names
            .into_iter()
            .any(|name| is_within(name, path) || moves && is_within(path, name))
    }
}

fn alike(old: Entry, new: Entry, timeless: bool) -> bool {
    let plain = |entry: Entry| Entry {
        inode: 0,
        // The size of a directory follows its entries too.
        bytes: if entry.kind == EntryKind::Directory {
            0
        } else {
            entry.bytes
        },
        modified: if timeless { (0, 0) } else { entry.modified },
        ..entry
    };
    plain(old) == plain(new)
}

/// Whether `path` is `top` or below it.
fn is_within(path: &[u8], top: &[u8]) -> bool {
    top.is_empty()
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.files += other.files;
        self.directories += other.directories;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Sums {
    pub fn of<'a>(differences: impl IntoIterator<Item = &'a Difference>) -> Sums {
        let mut sums = Sums::default();
        for difference in differences {
            let sum = match difference.what {
                What::Added => &mut sums.added,
                What::Removed => &mut sums.removed,
                What::Changed => &mut sums.changed,
                What::Renamed => &mut sums.renamed,
                What::Metadata => &mut sums.metadata,
            };
            sum.add(difference.sum());
        }
        sums
    }

    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        for sum in [
            self.added,
            self.removed,
            self.changed,
            self.renamed,
            self.metadata,
        ] {
            total.add(sum);
        }
        total
    }
}

/// Takes a name that was removed, and is a further name of another file now, for one that changed. They are sorted as
/// `Fold::finish` does.
pub fn paired(changes: Vec<Change>) -> Vec<Change> {
    let mut told: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        let pair = told.last_mut().filter(|last| {
            last.what == What::Added
                && last.from.is_some()
                && change.what == What::Removed
                && last.path == change.path
                && !change.is_directory()
        });
        match pair {
            Some(name) => {
                (name.what, name.from, name.replaced) = (What::Changed, None, true);
            }
            None => told.push(change),
        }
    }
    told
}

/// Lets all names of a file know what was told under one of them: a stream speaks of each name by itself.
pub fn united(differences: &mut [Difference]) {
    let changed = differences.iter().filter(|difference| difference.content);
    let changed: BTreeSet<u64> = changed.filter_map(|difference| difference.inode).collect();
    let same = |difference: &&mut Difference| {
        difference
            .inode
            .is_some_and(|inode| changed.contains(&inode))
    };
    for difference in differences.iter_mut().filter(same) {
        difference.content = true;
        if difference.what == What::Metadata {
            difference.what = What::Changed;
        }
    }
}

/// The directories in which most differs, by bytes, then by number; at most `most`. The top of the dataset has no name.
pub fn tops(differences: &[Difference], most: usize) -> Vec<(Vec<u8>, Sums)> {
    let mut by_top: BTreeMap<&[u8], Vec<&Difference>> = BTreeMap::new();
    for difference in differences {
        by_top
            .entry(top(&difference.path))
            .or_default()
            .push(difference);
    }
    let sums = by_top.into_iter();
    let mut sums: Vec<(Vec<u8>, Sums)> = sums
        .map(|(top, all)| (top.to_vec(), Sums::of(all)))
        .collect();
    let weight = |sums: &Sums| (sums.total().bytes, sums.total().files);
    sums.sort_by(|a, b| weight(&b.1).cmp(&weight(&a.1)).then_with(|| a.0.cmp(&b.0)));
    sums.truncate(most);
    sums
}

/// The directory that holds `path`, not deeper than is told apart.
fn top(path: &[u8]) -> &[u8] {
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
    let ends: Vec<usize> = slashes.take(TOP_DEPTH).map(|(at, _)| at).collect();
    ends.last().map_or(b"", |end| &path[..*end])
}

/// As a listing of the tree has them: what is in a directory right after it.
pub fn sort(differences: &mut [Difference]) {
    differences.sort_by(|a, b| in_tree(&a.path, &b.path).then(a.what.cmp(&b.what)));
}

fn in_tree(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|&b| b == b'/').cmp(b.split(|&b| b == b'/'))
}

/// Puts what is wholly new, or gone, into the directory that is so itself. They are sorted.
pub fn folded(differences: Vec<Difference>) -> Vec<Difference> {
    let mut told: Vec<Difference> = Vec::new();
    // Of each kind the last directory that can take others in: a path can be gone and new at once.
    let mut open: [Option<usize>; 2] = [None, None];
    for difference in differences {
        let which = match difference.what {
            What::Added => Some(0),
            What::Removed => Some(1),
            What::Changed | What::Renamed | What::Metadata => None,
        };
        let holder = which.and_then(|which| open[which]);
        let holder = holder.filter(|&at| is_within(&difference.path, &told[at].path));
        match (holder, which) {
            (Some(at), _) => told[at]
                .inside
                .get_or_insert_default()
                .add(difference.sum()),
            (None, which) => {
                if let Some(which) = which.filter(|_| difference.is_directory()) {
                    open[which] = Some(told.len());
                }
                told.push(difference);
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(what: What, path: &str) -> Change {
        let (from, path) = match path.split_once('>') {
            Some((from, path)) => (Some(from.trim_end_matches('/').into()), path),
            None => (None, path),
        };
        let kind = if path.ends_with('/') {
            EntryKind::Directory
        } else {
            EntryKind::File
        };
        Change {
            what,
            path: path.trim_end_matches('/').into(),
            from,
            kind: Some(kind),
            written: Vec::new(),
            bytes: 0,
            resized: None,
            replaced: false,
            metadata: false,
            at: None,
        }
    }

    fn entry(kind: EntryKind, bytes: u64) -> Entry {
        Entry {
            kind,
            inode: 300,
            bytes,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: (5, 0),
            attributes: 0,
        }
    }

    /// `+path`, `-path`, `~path`, `=path`, `from>path`; a directory ends in a slash, a file has a byte.
    fn differences(words: &str) -> Vec<Difference> {
        let one = |word: &str| {
            let (what, path) = match word.split_at(1) {
                ("+", path) => (What::Added, path),
                ("-", path) => (What::Removed, path),
                ("~", path) => (What::Changed, path),
                ("=", path) => (What::Metadata, path),
                _ => (What::Renamed, word),
            };
            let change = Change {
                metadata: true,
                ..change(what, path)
            };
            let here = entry(change.kind.unwrap(), 1);
            let old = Some(here).filter(|_| what != What::Added);
            let new = Some(here).filter(|_| what != What::Removed);
            Difference::of(change, old, new, Kinship::Related).unwrap()
        };
        let mut all: Vec<Difference> = words.split(' ').map(one).collect();
        sort(&mut all);
        all
    }

    fn spelled(differences: &[Difference]) -> String {
        let one = |difference: &Difference| {
            let sign = ["+", "-", "~", ">", "="][difference.what as usize];
            let path = String::from_utf8(difference.path.clone()).unwrap();
            let inside = difference
                .inside
                .map(|sum| format!("({}f,{}d,{}b)", sum.files, sum.directories, sum.bytes));
            format!("{sign}{path}{}", inside.unwrap_or_default())
        };
        differences.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn folding() {
        let check = |words: &str, expected: &str| {
            assert_eq!(spelled(&folded(differences(words))), expected, "{words}");
        };
        check("+a +b", "+a +b");
        check("+d/ +d/a +d/e/ +d/e/b", "+d(2f,1d,2b)");
        check("-d/ -d/a", "-d(1f,0d,1b)");
        // Sorted as in a tree, not as bytes: `d-x` is not between `d` and `d/a`.
        check("+d/ +d-x +d/a", "+d(1f,0d,1b) +d-x");
        check("+d/ +dd", "+d +dd");
        // What came from elsewhere is told.
        check("+d/ x>d/a +d/b", "+d(1f,0d,1b) >d/a");
        // Gone and new at once.
        check("-d/ -d/a +d", "+d -d(1f,0d,1b)");
        check("+d/ -d/a", "+d -d/a");
        check("=d/ +d/e/ +d/e/a", "=d +d/e(1f,0d,1b)");
    }

    #[test]
    fn no_difference_to_people() {
        let check = |change: Change, old: Entry, new: Entry, kinship, told: bool| {
            let found = Difference::of(change.clone(), Some(old), Some(new), kinship);
            assert_eq!(
                found.is_some(),
                told,
                "{change:?} {old:?} {new:?} {kinship:?}"
            );
        };
        let (related, strangers) = (Kinship::Related, Kinship::Strangers);
        let file = entry(EntryKind::File, 7);
        let meta = || change(What::Metadata, "a");
        check(meta(), file, file, related, false);
        check(
            meta(),
            file,
            Entry {
                modified: (6, 0),
                ..file
            },
            related,
            true,
        );
        check(
            meta(),
            file,
            Entry {
                mode: 0o600,
                ..file
            },
            related,
            true,
        );
        check(
            meta(),
            file,
            Entry {
                attributes: 16,
                ..file
            },
            related,
            true,
        );
        // An attribute was set, which no entry shows.
        check(
            Change {
                metadata: true,
                ..meta()
            },
            file,
            file,
            related,
            true,
        );
        let rewritten = || Change {
            replaced: true,
            ..change(What::Changed, "a")
        };
        check(rewritten(), file, file, related, true);
        check(rewritten(), file, file, strangers, false);
        check(
            rewritten(),
            file,
            Entry { bytes: 8, ..file },
            strangers,
            true,
        );
        let dir = Entry {
            modified: (1, 1),
            ..entry(EntryKind::Directory, 10)
        };
        check(
            change(What::Metadata, "d/"),
            dir,
            entry(EntryKind::Directory, 0),
            strangers,
            false,
        );
        check(
            change(What::Metadata, "d/"),
            dir,
            entry(EntryKind::Directory, 0),
            related,
            true,
        );
        check(change(What::Renamed, "b>a"), file, file, strangers, true);
    }

    #[test]
    fn sums_and_tops() {
        let all = differences("+a +d/ +d/e/ +d/e/f +d/e/f2 -x/y ~d/q r>s");
        let sums = Sums::of(&all);
        assert_eq!(
            sums.added,
            Sum {
                files: 3,
                directories: 2,
                bytes: 3
            }
        );
        assert_eq!(
            sums.removed,
            Sum {
                files: 1,
                directories: 0,
                bytes: 1
            }
        );
        assert_eq!((sums.changed.files, sums.renamed.files), (1, 1));
        assert_eq!(sums.total().files, 6);
        let tops = tops(&all, 3);
        let names: Vec<&[u8]> = tops.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [&b"d/e"[..], b"", b"x"]);
        assert_eq!(top(b"a/b/c/d"), b"a/b");
        assert_eq!(top(b"a"), b"");
    }

    #[test]
    fn what_concerns_a_path() {
        let check = |word: &str, path: &str, expected: bool| {
            let found = differences(word)[0].concerns(path.as_bytes());
            assert_eq!(found, expected, "{word} {path}");
        };
        check("+a", "", true);
        check("+a/b", "a", true);
        check("+ab", "a", false);
        check("~a/b", "a/b", true);
        check("~a", "a/b", false);
        check("-a/", "a/b", true);
        check("x/>y/", "x/b", true);
        check("x>a/b", "a", true);
        check("=a/", "a/b", false);
    }

    #[test]
    fn names_of_one_file() {
        let further = Change {
            from: Some(b"b".to_vec()),
            ..change(What::Added, "a")
        };
        let gone = || change(What::Removed, "a");
        let told = paired(vec![further.clone(), gone(), change(What::Removed, "c")]);
        assert_eq!(
            (told.len(), told[0].what, told[0].replaced),
            (2, What::Changed, true)
        );
        assert_eq!(paired(vec![change(What::Added, "a"), gone()]).len(), 2);
        assert_eq!(paired(vec![further, change(What::Removed, "c")]).len(), 2);

        let mut all = differences("x>y ~z =w");
        all[2].content = true;
        all[0].inode = Some(7);
        united(&mut all);
        assert_eq!(spelled(&all), "=w >y ~z");
        assert!(all[1].content && !all[0].content);
    }

    #[test]
    fn sizes() {
        let made = Change {
            bytes: 8192,
            replaced: true,
            ..change(What::Changed, "a")
        };
        let (old, new) = (entry(EntryKind::Symlink, 3), entry(EntryKind::File, 5000));
        let told = Difference::of(made, Some(old), Some(new), Kinship::Related).unwrap();
        assert_eq!(told.was, Some(EntryKind::Symlink));
        assert_eq!(
            (told.old_bytes, told.new_bytes, told.written),
            (None, Some(5000), 5000)
        );
    }
}
