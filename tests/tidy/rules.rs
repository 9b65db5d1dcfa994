//! The house rules: each a function from one source to the places that break it, each with a test that it can fail.

use crate::source::{Source, item_end};

/// Lines in a file.
const FILE_LINES_MAX: usize = 600;

/// Lines in a function, from its name to its last brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The same where tests lay out their data.
const TEST_LINES_MAX: usize = 120;

/// Who may name whom: a module of `src`, and the modules of this crate that may stand in it. A module without a row may
/// name all of them.
const WALLS: [(&str, &[&str]); 9] = [
    ("logic", &["logic"]),
    ("error", &["error"]),
    ("sandbox", &["sandbox"]),
    ("cli", &["cli", "config", "logic", "error"]),
    ("fs", &["fs", "sandbox", "logic", "error"]),
    ("host", &["host", "sandbox", "logic", "error"]),
    ("peer", &["peer", "sandbox", "logic", "error"]),
    ("config", &["config", "logic", "error"]),
    (
        "daemon",
        &[
            "daemon", "config", "fs", "host", "peer", "sandbox", "logic", "error",
        ],
    ),
];

/// What `logic` must not know: the clock, the disk, the network, processes, the log.
const IMPURE: [&str; 16] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::io",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "tokio",
    "tracing",
    "println!",
    "rustix",
    "libc::",
    "Timestamp::now",
    "Zoned::now",
    "TimeZone::system",
];

pub fn walls(source: &Source) -> Vec<String> {
    let Some(module) = module(source) else {
        return vec![];
    };
    let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == module) else {
        return vec![];
    };
    let mut complaints = Vec::new();
    for at in source.finds("crate::") {
        // A macro's own crate, or a name that only ends so.
        let before = source.code[..at].chars().next_back();
        if before.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        for name in first_names(&source.code[at + "crate::".len()..]) {
            if !allowed.contains(&name.as_str()) {
                complaints.push(format!(
                    "{}: {module} must not know {name}",
                    source.place(at)
                ));
            }
        }
    }
    complaints.extend(ways_up(source));
    complaints
}

/// `super::` that climbs to the crate's root goes around the walls.
fn ways_up(source: &Source) -> Vec<String> {
    let inside = source
        .path
        .trim_start_matches("src/")
        .trim_end_matches(".rs");
    let inside = inside.trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let mut complaints = Vec::new();
    let mut counted_to = 0;
    for at in source.finds("super::") {
        if at < counted_to {
            continue;
        }
        let steps = source.code[at..]
            .split("super::")
            .skip(1)
            .take_while(|s| s.is_empty());
        let steps = steps.count() + 1;
        counted_to = at + steps * "super::".len();
        let allowed = depth - 1 + usize::from(source.is_test(at));
        if steps > allowed {
            let place = source.place(at);
            complaints.push(format!(
                "{place}: name the crate's modules by crate::, not by super::"
            ));
        }
    }
    complaints
}

pub fn purity(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let module = module(source);
    if module == Some("logic") {
        for word in IMPURE {
            for at in source.finds(word).filter(|&at| !source.is_test(at)) {
                complaints.push(format!(
                    "{}: {word} in logic; take it as an argument",
                    source.place(at)
                ));
            }
        }
    }
    if matches!(module, Some("logic" | "fs")) {
        for word in ["async ", ".await"] {
            for at in source.finds(word) {
                complaints.push(format!(
                    "{}: async stops at the door of the data",
                    source.place(at)
                ));
            }
        }
    }
    complaints
}

pub fn sizes(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!(
            "{}: {lines} lines; split it by reason to change",
            source.path
        ));
    }
    for at in source.finds("fn ") {
        let word_before = source.code[..at].chars().next_back();
        if word_before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let body = &source.code[at..item_end(&source.code, at)];
        let lines = body.lines().count();
        let most = if source.is_test(at) {
            TEST_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        if lines > most {
            let name = body["fn ".len()..].split(['(', '<']).next().unwrap_or("");
            let place = source.place(at);
            complaints.push(format!("{place}: {name} has {lines} lines; at most {most}"));
        }
    }
    complaints
}

pub fn header(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return vec![];
    }
    vec![format!(
        "{}: begin with //! and what the file is for",
        source.path
    )]
}

pub fn bans(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut ban = |at: usize, why: &str| complaints.push(format!("{}: {why}", source.place(at)));
    for at in source.finds(".unwrap()").filter(|&at| !source.is_test(at)) {
        ban(
            at,
            "unwrap: return the error, or expect(\"why it cannot happen\")",
        );
    }
    for word in ["todo!", "unimplemented!", "dbg!"] {
        source.finds(word).for_each(|at| ban(at, "finish it"));
    }
    if module(source) != Some("commands") {
        for word in ["println!", "print!("] {
            let printed = source.finds(word).filter(|&at| !source.is_test(at));
            printed.for_each(|at| ban(at, "only commands print"));
        }
    }
    for word in ["#[ignore", "#[should_panic"] {
        source
            .finds(word)
            .for_each(|at| ban(at, "assert what is, or remove the test"));
    }
    for word in [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ] {
        let marks = source.text.match_indices(word);
        marks.for_each(|(at, _)| ban(at, "do it, or write an issue"));
    }
    for at in source.finds("thread::sleep") {
        if source.is_test(at) && !in_loop(&source.code, at) {
            ban(
                at,
                "wait for a condition (a loop with a deadline), not for a time",
            );
        }
    }
    complaints
}

/// The address of a packet socket, which no crate makes.
const PACKETS: &str = "src/host/announce.rs";

pub fn unsafety(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for at in source.finds("unsafe ").chain(source.finds("unsafe{")) {
        let at_the_kernel = source.path.starts_with("src/fs/btrfs/") || source.path == PACKETS;
        if !at_the_kernel && !source.is_test(at) {
            complaints.push(format!(
                "{}: unsafe belongs to the ioctl layer",
                source.place(at)
            ));
            continue;
        }
        let before: Vec<&str> = source.text[..at].lines().rev().take(8).collect();
        if !before.iter().any(|line| line.contains("// SAFETY:")) {
            complaints.push(format!(
                "{}: say why it is sound: // SAFETY: ...",
                source.place(at)
            ));
        }
    }
    complaints
}

pub fn names(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for kind in ["struct ", "enum ", "trait ", "mod ", "fn "] {
        for at in source.finds(kind) {
            let name = word(&source.code[at + kind.len()..]);
            for bad in [
                "Manager", "Helper", "Handler", "Util", "helper", "utils", "common", "misc",
            ] {
                if name.contains(bad) && (bad.starts_with(char::is_uppercase) || name == bad) {
                    complaints.push(format!(
                        "{}: {name} says nothing; name what it is",
                        source.place(at)
                    ));
                }
            }
        }
    }
    complaints
}

/// Whether a `loop`, `while` or `for` encloses the place.
fn in_loop(code: &str, at: usize) -> bool {
    let mut open: Vec<bool> = Vec::new();
    let mut from = 0;
    for (here, c) in code[..at].char_indices() {
        match c {
            '{' => {
                let head = code[from..here].trim_start();
                let loops = ["loop", "while ", "for "];
                open.push(
                    loops.iter().any(|word| head.starts_with(word)) || head.contains(" loop"),
                );
                from = here + 1;
            }
            '}' => {
                open.pop();
                from = here + 1;
            }
            ';' => from = here + 1,
            _ => {}
        }
    }
    open.contains(&true)
}

/// The top module a source belongs to; none outside `src` and for the crate's roots.
fn module(source: &Source) -> Option<&str> {
    let inside = source.path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main")).then_some(module)
}

fn word(code: &str) -> String {
    let letters = code
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_');
    letters.collect()
}

/// The names after `crate::`: one, or those in a group of braces.
fn first_names(code: &str) -> Vec<String> {
    let Some(group) = code.strip_prefix('{') else {
        return vec![word(code)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, complaints: usize) {
        let found = rule(&Source::new(path, text));
        assert_eq!(found.len(), complaints, "{path}: {text}\n{found:#?}");
    }

    #[test]
    fn walls_can_fail() {
        check(walls, "src/logic/plan.rs", "use crate::logic::name::X;", 0);
        check(walls, "src/logic/plan.rs", "use crate::fs::X;", 1);
        check(
            walls,
            "src/fs/a.rs",
            "use crate::{error::Code, logic::{a, b}, peer::P, config};",
            2,
        );
        check(
            walls,
            "src/peer/a.rs",
            "fn a() { crate::daemon::x() } // crate::config::y",
            1,
        );
        check(walls, "src/logic/plan.rs", "use super::name::X;", 0);
        check(walls, "src/logic/plan.rs", "use super::super::fs::X;", 1);
        check(
            walls,
            "src/fs/mod.rs",
            "use super::config::X;\n#[cfg(test)]\nmod tests { use super::*; }",
            1,
        );
        check(walls, "src/commands/a.rs", "use crate::daemon::x;", 0);
        check(walls, "src/daemon/a.rs", "use crate::commands::x;", 1);
        check(walls, "tests/a.rs", "use crate::fs::x;", 0);
    }

    #[test]
    fn purity_can_fail() {
        check(purity, "src/logic/a.rs", "fn a() { std::fs::read(p) }", 1);
        check(
            purity,
            "src/logic/a.rs",
            "fn a() { \"std::fs\" } // tokio",
            0,
        );
        check(
            purity,
            "src/logic/a.rs",
            "#[cfg(test)]\nmod tests { use std::fs; }",
            0,
        );
        check(
            purity,
            "src/peer/a.rs",
            "async fn a() { tokio::x().await }",
            0,
        );
        check(purity, "src/fs/a.rs", "async fn a() {}", 1);
    }

    #[test]
    fn sizes_can_fail() {
        let long = |lines| format!("fn a() {{\n{}}}\n", "x();\n".repeat(lines));
        check(sizes, "src/a.rs", &long(FUNCTION_LINES_MAX - 2), 0);
        check(sizes, "src/a.rs", &long(FUNCTION_LINES_MAX - 1), 1);
        check(sizes, "src/a.rs", &"//\n".repeat(FILE_LINES_MAX + 1), 1);
    }

    #[test]
    fn header_can_fail() {
        check(header, "src/a.rs", "//! What for.\n", 0);
        check(header, "src/a.rs", "use x;\n", 1);
    }

    #[test]
    fn bans_can_fail() {
        check(bans, "src/a.rs", "fn a() { x.unwrap() }", 1);
        check(
            bans,
            "src/a.rs",
            "#[cfg(test)]\nmod t { fn a() { x.unwrap() } }",
            0,
        );
        check(
            bans,
            "src/a.rs",
            "fn a() { todo!(); dbg!(x); println!() }",
            3,
        );
        check(bans, "src/commands/a.rs", "fn a() { println!() }", 0);
        check(
            bans,
            "tests/a.rs",
            "#[ignore]\nfn a() {}\n#[should_panic]",
            2,
        );
        check(bans, "src/a.rs", concat!("// TO", "DO later"), 1);
        check(bans, "tests/a.rs", "fn a() { thread::sleep(d); }", 1);
        check(
            bans,
            "tests/a.rs",
            "fn a() { while now < end { thread::sleep(d); } }",
            0,
        );
        check(
            bans,
            "tests/a.rs",
            "fn a() { for x in y { x(); } thread::sleep(d); }",
            1,
        );
    }

    #[test]
    fn unsafety_can_fail() {
        check(
            unsafety,
            "src/fs/btrfs/a.rs",
            "// SAFETY: x\nunsafe { y() }",
            0,
        );
        check(unsafety, PACKETS, "// SAFETY: x\nunsafe { y() }", 0);
        check(unsafety, PACKETS, "unsafe { y() }", 1);
        check(unsafety, "src/host/a.rs", "// SAFETY: x\nunsafe { y() }", 1);
        check(unsafety, "src/fs/btrfs/a.rs", "unsafe { y() }", 1);
        check(unsafety, "src/peer/a.rs", "// SAFETY: x\nunsafe { y() }", 1);
        check(unsafety, "tests/a.rs", "// SAFETY: x\nunsafe { y() }", 0);
        check(unsafety, "tests/a.rs", "unsafe { y() }", 1);
    }

    #[test]
    fn names_can_fail() {
        check(names, "src/a.rs", "struct LinkManager;", 1);
        check(names, "src/a.rs", "mod utils;\nmod common;", 2);
        check(
            names,
            "src/a.rs",
            "struct Link; // a Manager\nfn uncommon() {}",
            0,
        );
    }
}
