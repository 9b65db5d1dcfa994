//! Histories as rows of letters, and what they fold into.

use super::*;

fn node(word: &str) -> NodeName {
    NodeName::parse(word).unwrap()
}

fn point(sequence: u64) -> PointName {
    PointName {
        taken: Timestamp::from_second(sequence as i64 * 60).unwrap(),
        epoch: 1,
        sequence,
    }
}

/// `a1`: content a, inode 1; `m`: the same content a with another mode; `t`: its ctime moved; `d`: a directory; `.`: nothing.
fn facts(word: &str) -> Option<Facts> {
    let content = word.chars().next().unwrap();
    let inode = word[1..].parse().unwrap_or(1);
    let plain = Facts {
        kind: Kind::File,
        size: 10,
        mtime: (100, 0),
        ctime: (100, 0),
        inode,
        mode: 0o644,
        uid: 0,
        gid: 0,
        target: None,
    };
    match content {
        '.' => None,
        'a' => Some(plain),
        'b' => Some(Facts {
            size: 20,
            mtime: (200, 0),
            ctime: (200, 0),
            ..plain
        }),
        'm' => Some(Facts {
            mode: 0o600,
            ctime: (150, 0),
            ..plain
        }),
        't' => Some(Facts {
            ctime: (160, 0),
            ..plain
        }),
        'd' => Some(Facts {
            kind: Kind::Directory,
            size: 0,
            ..plain
        }),
        other => panic!("{other}"),
    }
}

fn seen(sequence: u64, word: &str, on: &[&str]) -> Seen {
    Seen {
        point: point(sequence),
        taken_by: Some(node("alder")),
        on: on.iter().map(|name| node(name)).collect(),
        facts: facts(word),
    }
}

/// Points in a row, oldest first; `b@birch` is one that birch alone holds. `live` may be empty: not looked at.
fn history(line: &str, live: &str) -> History {
    let line = line.split_whitespace().enumerate().map(|(at, word)| {
        let (word, on) = word.split_once('@').unwrap_or((word, "alder"));
        seen(at as u64 + 1, word, &[on])
    });
    History {
        line: line.collect(),
        live: (!live.is_empty()).then(|| facts(live)),
        forks: Vec::new(),
    }
}

fn told(versions: &[Version]) -> String {
    let rows = versions.iter().map(|version| {
        let number = version.number.map_or("-".into(), |n| n.to_string());
        let what = format!("{:?}", version.what).to_lowercase();
        let first = version.points.first().map(|p| p.sequence);
        let last = version.points.last().map(|p| p.sequence);
        let span = match (first, last) {
            (Some(first), Some(last)) if first == last => format!(" {first}"),
            (Some(first), Some(last)) => format!(" {first}-{last}"),
            _ => String::new(),
        };
        let live = if version.live { " live" } else { "" };
        let same = version.same_as.map_or(String::new(), |n| format!(" ={n}"));
        let fork = if version.fork.is_some() { " fork" } else { "" };
        format!("{number} {what}{span}{live}{fork}{same}")
    });
    rows.collect::<Vec<_>>().join("; ")
}

fn check(line: &str, live: &str, expected: &str) {
    let versions = fold(history(line, live), &node("alder"));
    assert_eq!(told(&versions), expected, "{line} | {live}");
}

#[test]
fn histories() {
    check("", "", "");
    check(". . .", ".", "");
    check("a a a", "a", "1 oldest 1-3 live");
    check(". a a", "a", "1 created 2-3 live");
    check("a a b b", "b", "1 changed 3-4 live; 2 oldest 1-2");
    check("a a", "b", "1 changed live; 2 oldest 1-2");
    check("", "b", "1 created live");
    check("a . .", ".", "- removed 2-3 live; 1 oldest 1");
    check("a a", ".", "- removed live; 1 oldest 1-2");
    check("a . a", "", "1 created 3 =2; - removed 2; 2 oldest 1");
    check("a m m", "m", "1 metadata 2-3 live; 2 oldest 1");
    check("a d", "d", "1 replaced 2 live; 2 oldest 1");
    check("a b a", "a", "1 changed 3 live =3; 2 changed 2; 3 oldest 1");
}

#[test]
fn what_makes_two_one() {
    // The ctime of one file of one node tells; of a copy, which has another inode, it does not.
    check("a a t", "t", "1 metadata 3 live; 2 oldest 1-2");
    check("a t2", "t2", "1 oldest 1-2 live");
    check(
        "a b t2",
        "t2",
        "1 changed 3 live =3; 2 changed 2; 3 oldest 1",
    );
    // Nor do those of another node.
    check("a@birch t a", "a", "1 metadata 3 live =2; 2 oldest 1-2");
    check("t@birch a", "a", "1 oldest 1-2 live");
}

#[test]
fn what_only_peers_have_is_numbered_last() {
    check(
        "a@birch b@birch a b",
        "b",
        "1 changed 4 live =3; 2 changed 3 =4; 3 changed 2; 4 oldest 1",
    );
    check(
        "a b@birch a",
        "a",
        "1 changed 3 live; 2 changed 2; 1 oldest 1",
    );
    let versions = fold(history("a b@birch b@cedar a", "a"), &node("alder"));
    assert_eq!(versions[1].there, Some((node("cedar"), point(3))));
    assert_eq!(versions[1].here, None);
}

/// Whatever peers say, what is here keeps its number.
#[test]
fn peers_renumber_nothing() {
    let check = |alone: &str, with: &str| {
        let numbers = |line: &str| -> Vec<(u64, u32)> {
            let versions = fold(history(line, "b"), &node("alder"));
            let here = versions.iter().filter(|v| v.facts.is_some());
            let mut numbers: Vec<(u64, u32)> = here
                .filter_map(|v| Some((v.facts.as_ref()?.size, v.number?)))
                .collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let (alone, with) = (numbers(alone), numbers(with));
        let kept = alone.iter().filter(|number| with.contains(number)).count();
        assert_eq!(kept, alone.len(), "{alone:?} {with:?}");
    };
    check("a b", "a m@birch b");
    check("a b", "b@birch a b@birch a@birch b");
    check("a . b", "a b@birch . a@birch b d@birch");
}

#[test]
fn forks_tell_what_differs_from_their_base() {
    let with = |base: Option<u64>, words: &str| {
        let mut history = history("a a b", "b");
        let words = words.split_whitespace().enumerate();
        let held = words.map(|(at, word)| seen(at as u64 + 10, word, &["alder"]));
        history.forks.push(Forked {
            fork: point(10),
            base: base.map(|sequence| (1, sequence)),
            seen: held.collect(),
        });
        told(&fold(history, &node("alder")))
    };
    let plain = "1 changed 3 live; 2 oldest 1-2";
    assert_eq!(with(Some(2), "a a"), plain);
    assert_eq!(
        with(Some(2), "a m"),
        "1 metadata 11 fork; 2 changed 3 live; 3 oldest 1-2"
    );
    assert_eq!(
        with(Some(2), ". ."),
        "- removed 10-11 fork; 1 changed 3 live; 2 oldest 1-2"
    );
    assert_eq!(
        with(None, "a"),
        "1 changed 10 fork =3; 2 changed 3 live; 3 oldest 1-2"
    );
}

#[test]
fn picks() {
    let check = |line: &str, live: &str, wanted: Pick, expected: &str| {
        let versions = fold(history(line, live), &node("alder"));
        let found = match pick(&versions, &wanted) {
            Ok(at) => versions[at].number.unwrap().to_string(),
            Err(why) => why,
        };
        assert!(
            found.starts_with(expected),
            "{line} | {live} {wanted:?}: {found}"
        );
    };
    let at = |seconds| Pick::Before(Timestamp::from_second(seconds).unwrap());
    let in_point = |words: &str| Pick::Point(words.into());
    check("a b", "b", Pick::Last, "2");
    check("a b", ".", Pick::Last, "1");
    check("a b a", "a", Pick::Last, "2");
    check(
        "a a",
        "a",
        Pick::Last,
        "no version differs from what is live",
    );
    check(".", ".", Pick::Last, "no point shows it");
    check("a b", "b", Pick::Newest, "1");
    check("a b", "b", Pick::Number(2), "2");
    check(
        "a b",
        "b",
        Pick::Number(3),
        "there is no version 3: they go from 1 to 2",
    );
    check("a b . a", "a", at(59), "no point of that time");
    check("a b . a", "a", at(60), "3");
    check("a b . a", "a", at(170), "2");
    check(
        "a b . a",
        "a",
        at(200),
        "it was not there then: 1.2 is the last point",
    );
    check("a b . a", "a", at(9999), "1");
    check("a b . a", "a", in_point("1.2"), "2");
    check("a b . a", "a", in_point("1.3"), "it was not there then");
    check("a b . a", "a", in_point("1.9"), "no point \"1.9\" shows it");
    check("a b . a", "a", in_point("1970"), "4 points begin with");
    check("a b . a", "a", in_point("19700101T000200Z"), "2");
}
