//! Whose file a path of the stream is, at that place of the stream.
//!
//! A path in a send stream is what the receiver has at that moment: it may be a temporary name, or one that belongs to another
//! file before and after. So every command that gives or takes a name is followed, over what the base holds.
//!
//! Promise: an inode that is answered is the one that the kernel meant; where that cannot be told the answer is none, never a
//! guess. Memory rises with the names that a stream changes, of a full stream with its directories, up to a bound.
//!
//! New inodes are known by the name under which they are made, `o<inode>-<generation>-<number>` (gen_unique_name in the kernel's
//! fs/btrfs/send.c); old ones by their path in the base.
//!
//! It deliberately does not know the disk.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::stream::Command;

/// Names that are remembered at most; a stream with more is left to the kernel.
const NAMES_MAX: usize = 100_000;

/// Who is meant by a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    New {
        inode: u64,
        generation: u64,
    },
    /// A file of the base, by its path there; empty: the top.
    Old(Arc<[u8]>),
}

/// A directory, as the parent of names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Dir {
    New(u64),
    Old(Arc<[u8]>),
}

/// The view of the receiver.
#[derive(Debug)]
pub struct Names {
    /// Without one every file is new, and only directories and the file at hand are remembered.
    base: bool,
    /// What differs from the base; none: nothing of that name, or nobody knows.
    given: HashMap<(Dir, Box<[u8]>), Option<Whose>>,
    /// Of a stream without a base: the names of the file made last.
    at_hand: Vec<(Vec<u8>, Whose)>,
}

/// More names than are remembered.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Names {
    pub fn new(base: bool) -> Names {
        Names {
            base,
            given: HashMap::new(),
            at_hand: Vec::new(),
        }
    }

    /// Takes in what a command does to names.
    pub fn follow(&mut self, command: &Command<'_>) -> Result<(), TooMany> {
        match command {
            Command::Mkfile { path, .. } => {
                self.at_hand.clear();
                let made = made(path);
                match (self.base, made) {
                    (true, made) => self.give(path, made),
                    (false, Some(made)) => self.at_hand.push((path.to_vec(), made)),
                    (false, None) => {}
                }
            }
            Command::Mkdir { path, .. } => self.give(path, made(path)),
            Command::Mkfifo { path }
            | Command::Mksock { path }
            | Command::Mknod { path, .. }
            | Command::Symlink { path, .. }
                if self.base =>
            {
                self.give(path, made(path));
            }
            Command::Rename { from, to } => self.rename(from, to),
            Command::Link { path, existing } => self.link(existing, path),
            Command::Unlink { path } | Command::Rmdir { path } => self.take(path),
            _ => {}
        }
        match self.given.len() > NAMES_MAX || self.at_hand.len() > NAMES_MAX {
            true => Err(TooMany),
            false => Ok(()),
        }
    }

    /// Whose file the path is now.
    pub fn whose(&self, path: &[u8]) -> Option<Whose> {
        let at_hand = self.at_hand.iter().find(|(name, _)| name == path);
        match at_hand {
            Some((_, whose)) => Some(whose.clone()),
            None => self.find(path),
        }
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        if let Some((name, _)) = self.at_hand.iter_mut().find(|(name, _)| name == from) {
            *name = to.to_vec();
            return;
        }
        let whose = self.find(from);
        // Of a stream without a base that is a file whose turn is over, or another thing without data.
        if self.base || whose.is_some() {
            self.take(from);
            self.give(to, whose);
        }
    }

    fn link(&mut self, existing: &[u8], path: &[u8]) {
        let at_hand = self.at_hand.iter().find(|(name, _)| name == existing);
        if let Some((_, whose)) = at_hand {
            let whose = whose.clone();
            self.at_hand.push((path.to_vec(), whose));
        } else if self.base {
            let whose = self.find(existing);
            self.give(path, whose);
        }
    }

    fn take(&mut self, path: &[u8]) {
        self.at_hand.retain(|(name, _)| name != path);
        let Some((dir, name)) = self.parent(path) else {
            return;
        };
        match self.base {
            true => drop(self.given.insert((dir, name.into()), None)),
            false => drop(self.given.remove(&(dir, name.into()))),
        }
    }

    fn give(&mut self, path: &[u8], whose: Option<Whose>) {
        if let Some((dir, name)) = self.parent(path) {
            self.given.insert((dir, name.into()), whose);
        }
    }

    /// The directory that a path is in, and its last name. A directory of which nobody knows whose it is has no names.
    fn parent<'a>(&self, path: &'a [u8]) -> Option<(Dir, &'a [u8])> {
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (self.find(&path[..at])?, &path[at + 1..]),
            None => (Whose::Old(Arc::default()), path),
        };
        Some((dir.into(), name))
    }

    fn find(&self, path: &[u8]) -> Option<Whose> {
        let mut whose = Whose::Old(Arc::default());
        if path.is_empty() {
            return Some(whose);
        }
        for name in path.split(|byte| *byte == b'/') {
            let dir = Dir::from(whose);
            whose = match self.given.get(&(dir.clone(), name.into())) {
                Some(given) => given.clone()?,
                None => match dir {
                    Dir::Old(dir) if self.base => Whose::Old(below(&dir, name)),
                    _ => return None,
                },
            };
        }
        Some(whose)
    }
}

fn below(dir: &[u8], name: &[u8]) -> Arc<[u8]> {
    match dir.is_empty() {
        true => name.into(),
        false => [dir, b"/", name].concat().into(),
    }
}

impl From<Whose> for Dir {
    fn from(whose: Whose) -> Dir {
        match whose {
            Whose::New { inode, .. } => Dir::New(inode),
            Whose::Old(path) => Dir::Old(path),
        }
    }
}

/// Inode and generation of something that is made under this path.
fn made(path: &[u8]) -> Option<Whose> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let text = std::str::from_utf8(name.strip_prefix(b"o")?).ok()?;
    let mut numbers = text.split('-').map(|number| number.parse::<u64>().ok());
    let (inode, generation, _) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let whole = numbers.next().is_none();
    whole.then_some(Whose::New { inode, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `story`: words of commands (`mkfile o257-9-0`, `mkdir`, `mv A B`, `ln EXISTING NEW`, `rm`), with commas; then whose `path`
    /// is: `257`, `old a/b`, or `nobody`.
    #[track_caller]
    fn check(base: bool, story: &str, path: &str, expected: &str) {
        let mut names = Names::new(base);
        for line in story.split(", ").filter(|line| !line.is_empty()) {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = match words[..] {
                [b"mkfile", path] => Command::Mkfile { path, inode: None },
                [b"mkdir", path] => Command::Mkdir { path, inode: None },
                [b"mkfifo", path] => Command::Mkfifo { path },
                [b"mv", from, to] => Command::Rename { from, to },
                [b"ln", existing, path] => Command::Link { path, existing },
                [b"rm", path] => Command::Unlink { path },
                [b"rmdir", path] => Command::Rmdir { path },
                _ => panic!("{line}"),
            };
            names.follow(&command).unwrap();
        }
        let got = match names.whose(path.as_bytes()) {
            None => "nobody".to_owned(),
            Some(Whose::New { inode, .. }) => inode.to_string(),
            Some(Whose::Old(path)) => format!("old {}", String::from_utf8_lossy(&path)),
        };
        assert_eq!(got, expected, "{story}");
    }

    #[test]
    fn without_a_base() {
        check(false, "mkfile o257-9-0", "o257-9-0", "257");
        check(false, "mkfile o257-9-0, mv o257-9-0 a", "a", "257");
        check(
            false,
            "mkfile o257-9-0, mv o257-9-0 a",
            "o257-9-0",
            "nobody",
        );
        check(false, "mkfile o257-9-0, mv o257-9-0 a, ln a b", "b", "257");
        let deep = "mkdir o257-9-0, mv o257-9-0 d, mkfile o258-9-0, mv o258-9-0 d/f";
        check(false, deep, "d/f", "258");
        // A parent that is younger is made in between.
        let young = "mkfile o257-9-0, mkdir o300-9-0, mv o257-9-0 o300-9-0/f";
        check(false, young, "o300-9-0/f", "257");
        // The turn of the file is over.
        check(
            false,
            "mkfile o257-9-0, mv o257-9-0 a, mkfile o258-9-0",
            "a",
            "nobody",
        );
        check(false, "", "a", "nobody");
        check(false, "mkfile strange", "strange", "nobody");
    }

    #[test]
    fn over_a_base() {
        check(true, "", "a/b", "old a/b");
        check(true, "mv a c", "c", "old a");
        check(true, "mv a c", "a", "nobody");
        check(true, "mv d e", "e/f", "old d/f");
        check(true, "mv d e", "d/f", "nobody");
        check(true, "mv d e, mv e/f g", "g", "old d/f");
        check(true, "mv d e, mv e/f g", "e/f", "nobody");
        // Two names are swapped.
        let swap = "mv a o300-9-0, mv b a, mv o300-9-0 b";
        check(true, swap, "a", "old b");
        check(true, swap, "b", "old a");
        // Two directories are, and one file in each.
        let swap = "mv a o300-9-0, mv b a, mv o300-9-0 b, mv a/x a/y, mv b/x a/x";
        check(true, swap, "a/y", "old b/x");
        check(true, swap, "a/x", "old a/x");
        check(true, swap, "b/x", "nobody");
        check(true, swap, "b/z", "old a/z");
        // A new file has an old one's name.
        check(true, "rm a, mkfile o300-9-0, mv o300-9-0 a", "a", "300");
        check(true, "rm a", "a", "nobody");
        check(true, "ln a b, rm a", "b", "old a");
        check(
            true,
            "mkdir o300-9-0, mv o300-9-0 n, mv a n/a",
            "n/a",
            "old a",
        );
        check(true, "mkdir o300-9-0, mv o300-9-0 n", "n/a", "nobody");
        check(
            true,
            "rmdir d, mkdir o300-9-0, mv o300-9-0 d",
            "d/f",
            "nobody",
        );
        check(true, "mkfifo o300-9-0, mv o300-9-0 a", "a", "300");
        // What nobody knows stays unknown under other names.
        check(true, "rm a, mv a b", "b", "nobody");
    }

    #[test]
    fn there_is_a_bound() {
        let mut names = Names::new(true);
        let mut last = Ok(());
        for number in 0..=NAMES_MAX {
            last = names.follow(&Command::Unlink {
                path: number.to_string().as_bytes(),
            });
        }
        assert_eq!(last, Err(TooMany));
    }
}
