//! A deed a word: `mk f`, `mkdir d`, `mv a b`, `ln new old`, `rm f`, `rmdir d`, `w f 0 10` (offset, length), `cp f 0 10` (a
//! clone), `cut f 5`, `mode f`, `t f 7` (times).

use super::*;

fn deed<'a>(words: &'a str) -> Deed<'a> {
    let words: Vec<&'a str> = words.split(' ').collect();
    let path = |at: usize| words[at].trim_matches('.').as_bytes();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let span = || Span {
        offset: number(2),
        len: number(3),
    };
    match words[0] {
        "mk" => Deed::Make {
            path: path(1),
            kind: EntryKind::File,
        },
        "mkdir" => Deed::Make {
            path: path(1),
            kind: EntryKind::Directory,
        },
        "symlink" => Deed::Make {
            path: path(1),
            kind: EntryKind::Symlink,
        },
        "mv" => Deed::Rename {
            from: path(1),
            to: path(2),
        },
        "ln" => Deed::Link {
            path: path(1),
            existing: path(2),
        },
        "rm" => Deed::Unlink { path: path(1) },
        "rmdir" => Deed::Rmdir { path: path(1) },
        "w" => Deed::Write {
            path: path(1),
            span: span(),
            own: span().len,
        },
        "cp" => Deed::Write {
            path: path(1),
            span: span(),
            own: 0,
        },
        "cut" => Deed::Resize {
            path: path(1),
            size: number(2),
        },
        "mode" => Deed::Describe { path: path(1) },
        "t" => Deed::Times {
            path: path(1),
            changed: number(2) as i64,
        },
        other => panic!("{other}"),
    }
}

/// `+f 10` added with so many bytes, `-f`, `~f [0+10] 10`, `a>b`, `=f` metadata, `+b (a)` a further name; `!` cut, `m` mode.
fn word(change: &Change) -> String {
    let path = shown(&change.path);
    let from = change.from.as_deref().map(shown);
    let mut text = match (change.what, from) {
        (What::Added, None) => format!("+{path}"),
        (What::Added, Some(first)) => format!("+{path} ({first})"),
        (What::Removed, _) => format!("-{path}"),
        (What::Changed, None) => format!("~{path}"),
        (What::Changed, Some(was)) => format!("~{path} ({was})"),
        (What::Renamed, was) => format!("{}>{path}", was.unwrap_or_default()),
        (What::Metadata, None) => format!("={path}"),
        (What::Metadata, Some(was)) => format!("={path} ({was})"),
    };
    if change.is_directory() {
        text.push('/');
    }
    let spans = change.written.iter();
    let spans: Vec<String> = spans.map(|s| format!("{}+{}", s.offset, s.len)).collect();
    if !spans.is_empty() {
        text.push_str(&format!(" [{}] {}", spans.join(","), change.bytes));
    }
    if change.replaced {
        text.push_str(" new");
    }
    if let Some(size) = change.resized {
        text.push_str(&format!(" !{size}"));
    }
    if change.metadata && change.what != What::Metadata {
        text.push_str(" m");
    }
    text
}

fn fold(based: bool, deeds: &str) -> Result<Vec<Change>, Astray> {
    let mut fold = Fold::new(based);
    for words in deeds.split("; ").filter(|words| !words.is_empty()) {
        fold.push(deed(words))?;
    }
    Ok(fold.finish())
}

fn check(deeds: &str, expected: &str) {
    let changes = fold(true, deeds).unwrap_or_else(|error| panic!("{deeds}: {error}"));
    let words: Vec<String> = changes.iter().map(word).collect();
    assert_eq!(words.join(", "), expected, "{deeds}");
}

#[test]
fn plain_changes() {
    check("", "");
    check(
        "w a/b 0 10; w a/b 10 5; w a/b 100 1; t a/b 7",
        "~a/b [0+15,100+1] 16",
    );
    check("w a 10 10; w a 0 15; t a 7", "~a [0+20] 25");
    check("cp a 0 10; w a 10 4", "~a [0+14] 4");
    check("cut a 3; t a 7", "~a !3");
    check("mode a; t a 7", "=a");
    check("t a 7", "=a");
    check("w a 0 4; mode a", "~a [0+4] 4 m");
    check("rm a/b; t a 5", "-a/b");
    check("rm d/f; rmdir d; t . 5", "-d/, -d/f");
    check("mode d; rm d/f; t d 4", "=d/, -d/f");
    check("t . 5", "");
}

#[test]
fn new_things_begin_under_a_name_of_the_stream() {
    check(
        "mk o9-7-0; mv o9-7-0 a; w a 0 3; mode a; t a 7",
        "+a [0+3] 3 m",
    );
    check(
        "mkdir o9-7-0; mv o9-7-0 d; mk o8-7-0; mv o8-7-0 d/f; w d/f 0 3",
        "+d/, +d/f [0+3] 3",
    );
    check("symlink o9-7-0; mv o9-7-0 s", "+s");
    check("mk o9-7-0; rm o9-7-0", "");
    check("mk o9-7-0; mv o9-7-0 a; ln d/b a; t d 4", "+a, +d/b (a)");
}

#[test]
fn moves() {
    // The kernel moves a file by a link and an unlink, a directory by a rename.
    check("ln b a; rm a; t b 7", "a>b");
    check("ln b a; rm a; w b 5 5; t b 7", "a>b [5+5] 5");
    check("ln e/b d/a; rm d/a; mode e/b", "d/a>e/b m");
    check("mv d e; t . 5", "d>e");
    check("mv d e; w e/f 0 1; t e 3", "d>e/, ~e/f (d/f) [0+1] 1");
    check("mv d e; ln e/g e/f; rm e/f", "d>e/, d/f>e/g");
    check("mv d/e x; rmdir d", "-d/, d/e>x");
    // A name that comes back is no move.
    check("mv a o5-6-0; mv o5-6-0 a; t a 7", "=a");
    check(
        "mkdir o9-7-0; mv d o5-6-0; mv o9-7-0 d; ln d/f o5-6-0/f; rm o5-6-0/f; rmdir o5-6-0",
        "=d/ new",
    );
}

#[test]
fn swaps() {
    check(
        "mv b o6-5-0; ln b a; rm a; ln a o6-5-0; rm o6-5-0",
        "b>a, a>b",
    );
    check(
        "mv b o6-5-0; mv a b; mv o6-5-0 a; w a/f 0 1",
        "b>a/, ~a/f (b/f) [0+1] 1, a>b",
    );
    // Parent and child change places.
    check("mv a/b o6-5-0; mv a o6-5-0/a; mv o6-5-0 b", "a/b>b, a>b/a/");
}

#[test]
fn hard_links() {
    check("ln b a; t b 7", "+b (a)");
    check("rm b", "-b");
    check("ln b a; ln c a; rm a", "a>b, +c (b)");
    check("ln b a; w b 0 1", "~a [0+1] 1, +b (a)");
}

#[test]
fn one_name_two_files() {
    check(
        "rm a; mk o9-7-0; mv o9-7-0 a; w a 0 9; mode a",
        "~a [0+9] 9 new m",
    );
    check("mk o9-7-0; mv a o5-6-0; mv o9-7-0 a; rm o5-6-0", "~a new");
    // The old one lives on.
    check("ln a.1 a; rm a; mk o9-7-0; mv o9-7-0 a", "+a, a>a.1");
    check("rm b; ln b a; rm a", "-b, a>b");
    // A directory in place of a file is not a changed file.
    check("rm a; mkdir o9-7-0; mv o9-7-0 a", "+a/, -a");
    check("rmdir d; mkdir o9-7-0; mv o9-7-0 d", "=d/ new");
    check("rm s; symlink o9-7-0; mv o9-7-0 s", "~s new");
}

#[test]
fn whole_trees() {
    let whole = fold(false, "mkdir d; mk d/f; w d/f 0 3; ln g d/f").unwrap();
    let words: Vec<String> = whole.iter().map(word).collect();
    assert_eq!(words.join(", "), "+d/, +d/f [0+3] 3, +g (d/f)");
}

#[test]
fn ways_that_lead_nowhere() {
    let check = |based, deeds: &str| assert!(fold(based, deeds).is_err(), "{deeds}");
    check(true, "rm a; w a 0 1");
    check(true, "mkdir d; rm d/f");
    check(true, "mv a a/b");
    check(true, "rmdir d; mk d/f");
    check(false, "w a 0 1");
}

#[test]
fn times_and_bytes_of_any_kind() {
    let changes = fold(
        true,
        "rm d/a; t d 9; mk o1-1-0; mv o1-1-0 d/b; t d/b 8; t d/b 6",
    )
    .unwrap();
    assert_eq!(
        changes.iter().map(|c| c.at).collect::<Vec<_>>(),
        [Some(9), Some(8)]
    );
    assert_eq!(shown(b"a\n\xffb\x1b"), "a\\n\u{fffd}b\\u{1b}");
    let mut fold = Fold::new(true);
    fold.push(Deed::Unlink { path: b"\xff/\n" }).unwrap();
    assert_eq!(fold.finish()[0].path, b"\xff/\n");
}

#[test]
fn a_hundred_thousand_changes() {
    let mut fold = Fold::new(true);
    for number in 0..100_000_u32 {
        let path = format!("dir{}/file{number}", number % 100);
        fold.push(Deed::Unlink {
            path: path.as_bytes(),
        })
        .unwrap();
    }
    assert_eq!(fold.finish().len(), 100_000);
}
