//! What is alike, what is not, and what a peer is told.

use super::*;

fn watch(accept: &[&str]) -> Watch {
    Watch {
        name: "w".to_owned(),
        what: What::File("/etc/a".to_owned()),
        peers: None,
        accept: accept
            .iter()
            .map(|text| Mask::parse(text).unwrap())
            .collect(),
        accept_missing: false,
        secret: false,
        user: None,
        timeout: TIMEOUT_DEFAULT,
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn found(items: &[(&str, Value)]) -> Found {
    Found {
        kind: "file".to_owned(),
        items: items
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        ..Found::default()
    }
}

fn compared(watch: &Watch, ours: &Found, theirs: Option<&Found>) -> Vec<Compared> {
    let names = (
        NodeName::parse("alder").unwrap(),
        NodeName::parse("birch").unwrap(),
    );
    let theirs = theirs.map(|theirs| (watch.name.clone(), theirs.clone()));
    compare(
        (&names.0, &names.1),
        [(watch, ours)].into_iter(),
        &theirs.into_iter().collect(),
    )
}

/// `item state`, and why, of each.
fn lines(compared: &[Compared]) -> Vec<String> {
    let line = |one: &Compared| {
        let item = one.item.as_deref().unwrap_or("-");
        let why = one
            .why
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        format!("{item} {:?}{why}", one.state)
    };
    compared.iter().map(line).collect()
}

fn check(watch: &Watch, ours: &[(&str, Value)], theirs: &[(&str, Value)], expected: &[&str]) {
    let made = compared(watch, &found(ours), Some(&found(theirs)));
    assert_eq!(lines(&made), expected, "{ours:?} {theirs:?}");
}

#[test]
fn two_nodes() {
    let plain = watch(&[]);
    check(&plain, &[], &[], &[]);
    check(
        &plain,
        &[("/a", text("x"))],
        &[("/a", text("x"))],
        &["/a Same"],
    );
    check(
        &plain,
        &[("/a", text("x"))],
        &[("/a", text("y"))],
        &["/a Differs"],
    );
    check(
        &plain,
        &[("/a", text("x")), ("/b", text("x"))],
        &[("/b", text("x")), ("/c", text("x"))],
        &["/a OnlyHere", "/b Same", "/c OnlyThere"],
    );
    let hash = |text: &str, bytes| Value::Hash {
        hash: hash(text.as_bytes()),
        bytes,
    };
    check(
        &plain,
        &[("/a", hash("x", 1))],
        &[("/a", hash("x", 1))],
        &["/a Same"],
    );
    check(
        &plain,
        &[("/a", text("x"))],
        &[("/a", hash("x", 1))],
        &["/a Same"],
    );
    check(
        &plain,
        &[("/a", hash("x", 1))],
        &[("/a", hash("y", 1))],
        &["/a Differs: too long, or no text: the difference is not shown"],
    );
    let unreadable = Value::Unreadable("read it: no".to_owned());
    check(
        &plain,
        &[("/a", unreadable.clone()), ("/b", text("x"))],
        &[("/a", text("x")), ("/b", unreadable.clone())],
        &[
            "/a UnreadableHere: could not read it: no",
            "/b UnreadableThere: could not read it: no",
        ],
    );
    assert_eq!(
        lines(&compared(&plain, &found(&[]), None)),
        ["- NotWatchedThere"]
    );
    let mut lenient = plain.clone();
    lenient.accept_missing = true;
    check(
        &lenient,
        &[("/a", text("x"))],
        &[("/b", text("x"))],
        &["/a Accepted", "/b Accepted"],
    );
    let made = compared(
        &plain,
        &found(&[("/a", text("1\n2\n"))]),
        Some(&found(&[("/a", text("1\n3\n"))])),
    );
    assert_eq!(
        made[0].diff.as_deref(),
        Some("--- alder\n+++ birch\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n")
    );
}

#[test]
fn what_is_not_known_is_not_alike() {
    let plain = watch(&[]);
    let one = found(&[("/a", text("x"))]);
    let mut broken = found(&[]);
    broken.problem = Some("run it".to_owned());
    assert_eq!(
        lines(&compared(&plain, &one, Some(&broken))),
        ["- UnreadableThere: could not run it"]
    );
    assert_eq!(
        lines(&compared(&plain, &broken, Some(&one))),
        ["- UnreadableHere: could not run it"]
    );
    let mut cut = found(&[]);
    cut.more = 7;
    assert_eq!(
        lines(&compared(&plain, &one, Some(&cut))),
        ["- UnreadableThere: 7 more are not compared: too many"]
    );
    let mut other = found(&[]);
    other.kind = "command".to_owned();
    assert_eq!(
        lines(&compared(&plain, &one, Some(&other))),
        ["- Differs: a file here, a command there"]
    );
}

#[test]
fn accepted_differences() {
    let check = |accept: &[&str], ours: &str, theirs: &str, same: bool| {
        let made = compared(
            &watch(accept),
            &found(&[("/a", text(ours))]),
            Some(&found(&[("/a", text(theirs))])),
        );
        assert_eq!(
            made[0].state == State::Same,
            same,
            "{accept:?} {ours:?} {theirs:?}"
        );
    };
    check(&[], "a 1", "a 2", false);
    check(&[r"\d+"], "a 1", "a 22", true);
    check(&[r"\d+"], "a 1", "b 1", false);
    check(
        &["^host .*"],
        "x\nhost alder\ny\n",
        "x\nhost birch\ny\n",
        true,
    );
    // A line that is accepted as a whole may be missing.
    check(&["^host .*"], "x\nhost alder\ny\n", "x\ny\n", true);
    check(&["^host"], "x\nhost alder\ny\n", "x\ny\n", false);
    check(
        &["alder|birch", r"port=\d+"],
        "alder port=1\n",
        "birch port=2\n",
        true,
    );
    assert_eq!(
        masked("id 7 of 9\n#c\nx", &watch(&[r"\d", "#.*"]).accept),
        "id (accepted) of (accepted)\nx"
    );
    assert!(
        Mask::parse("(")
            .unwrap_err()
            .starts_with("not a regular expression")
    );
    assert!(Mask::parse("x*").unwrap_err().contains("say more"));
}

#[test]
fn a_secret_stays_where_it_is() {
    let mut secret = watch(&[r"^at .*"]);
    secret.secret = true;
    let ours = found(&[("/a", text("at 1\npassword\n"))]);
    let mut room = ANSWER_BYTES_MAX;
    let told = told(&secret, &ours, &mut room);
    assert!(!serde_json::to_string(&told).unwrap().contains("password"));
    let check = |theirs: &str, open: bool, expected: &str| {
        let theirs = found(&[("/a", text(theirs))]);
        let mut watch = secret.clone();
        watch.secret = !open;
        let made = compared(&watch, &theirs, Some(&told));
        assert_eq!(lines(&made), [expected]);
        assert!(made[0].diff.is_none());
    };
    check("at 2\npassword\n", false, "/a Same");
    check("at 2\npassword\n", true, "/a Same");
    check(
        "at 1\nother\n",
        false,
        "/a Differs: secret: the difference is not shown",
    );
    check(
        "at 1\nother\n",
        true,
        "/a Differs: secret: the difference is not shown",
    );
    // Both as they are, of two texts that were never sent.
    let made = compared(&secret, &ours, Some(&found(&[("/a", text("x"))])));
    assert!(made[0].diff.is_none(), "{made:?}");
    let mut failed = found(&[("/a", Value::Unreadable("read password".to_owned()))]);
    failed.problem = Some("run it; it said: password".to_owned());
    let told = super::told(&secret, &failed, &mut room);
    assert!(!format!("{told:?}").contains("password"), "{told:?}");
}

#[test]
fn answers_are_bounded() {
    let plain = watch(&[]);
    let long = "x".repeat(TEXT_BYTES_MAX);
    let items: Vec<(String, Value)> = (0..30_000)
        .map(|n| (format!("/{n:05}"), text(if n < 8 { &long } else { "" })))
        .collect();
    let mut ours = found(&[]);
    ours.items = items.into_iter().collect();
    let mut room = ANSWER_BYTES_MAX;
    let answer = told(&plain, &ours, &mut room);
    assert!(serde_json::to_string(&answer).unwrap().len() < 2 * ANSWER_BYTES_MAX);
    assert!(matches!(answer.items["/00000"], Value::Text(_)));
    assert!(matches!(answer.items["/00007"], Value::Hash { .. }));
    assert_eq!(answer.items.len() as u64 + answer.more, 30_000);
    assert!(answer.more > 0);
}

#[test]
fn what_is_shown_is_bounded() {
    let plain = watch(&[]);
    let of = |letter: &str| {
        let long = format!("{letter}\n").repeat(TEXT_BYTES_MAX / 4);
        let items = (0..DIFFS_MAX + 20)
            .map(|n| (format!("/{n}"), text(if n < 40 { &long } else { letter })));
        let mut found = found(&[]);
        found.items = items.collect();
        found
    };
    let made = compared(&plain, &of("a"), Some(&of("b")));
    assert!(
        made.iter()
            .all(|one| one.state == State::Differs && (one.diff.is_some() != one.why.is_some()))
    );
    let shown: usize = made
        .iter()
        .filter_map(|one| Some(one.diff.as_ref()?.len()))
        .sum();
    assert!(shown <= DIFFS_BYTES_MAX, "{shown}");
    assert!(made.iter().filter(|one| one.diff.is_some()).count() <= DIFFS_MAX);
}

#[test]
fn patterns_of_names() {
    let check = |pattern: &str, name: &str, expected: bool| {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    };
    check("a", "a", true);
    check("a", "b", false);
    check("a", "ab", false);
    check("*", "", true);
    check("*", "abc", true);
    check("*.conf", "a.conf", true);
    check("*.conf", "a.conf.bak", false);
    check("a*b*c", "aXXbYYc", true);
    check("a*b*c", "abcb", false);
    check("?b", "ab", true);
    check("?b", "b", false);
    check("é?", "éö", true);
    check(&"*a".repeat(20), &"a".repeat(19), false);
}
