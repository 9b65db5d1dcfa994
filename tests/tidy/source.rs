//! Source files as the rules see them: text, the same text with strings and comments blanked, and where tests are.

use std::path::{Path, PathBuf};

/// One Rust file of this repository.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    pub text: String,
    /// As long as `text`, line for line, with every comment, string and character literal blanked.
    pub code: String,
    /// Byte ranges that are compiled for tests only.
    tests: Vec<(usize, usize)>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let tests = if path.starts_with("src/") {
            test_regions(&code)
        } else {
            vec![(0, code.len())]
        };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            tests,
        }
    }

    pub fn is_test(&self, at: usize) -> bool {
        self.tests
            .iter()
            .any(|&(from, to)| (from..to).contains(&at))
    }

    /// `path:line` of a byte.
    pub fn place(&self, at: usize) -> String {
        let line = self.text[..at].matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }

    /// Every place in the code (not in comments or strings) where `word` stands.
    pub fn finds<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at)
    }
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files that belong to the repository, relative to it. Those git knows; in an unpacked archive, all but `target`.
pub fn tracked() -> Vec<String> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let mut files: Vec<String> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.lines().map(str::to_owned).collect()
        }
        _ => walk(&root()),
    };
    files.retain(|file| root().join(file).is_file());
    files.sort();
    files
}

fn walk(from: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![from.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(from)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                open.push(path);
            } else if path.is_file() {
                files.push(name);
            }
        }
    }
    files
}

/// Every Rust file of `src` and `tests`. A module that is declared for tests only is a test throughout.
pub fn sources() -> Vec<Source> {
    let names = tracked();
    let names = names.iter().filter(|name| name.ends_with(".rs"));
    let mut sources: Vec<Source> = names
        .map(|name| Source::new(name, &std::fs::read_to_string(root().join(name)).unwrap()))
        .collect();
    let mut test_files = Vec::new();
    for source in &sources {
        for at in source.finds("#[cfg(test)]") {
            let rest = source.code[at..].lines().nth(1).unwrap_or("").trim();
            if let Some(name) = rest.strip_prefix("mod ").and_then(|r| r.strip_suffix(';')) {
                let dir = children(&source.path);
                test_files.push(format!("{dir}/{name}.rs"));
                test_files.push(format!("{dir}/{name}/mod.rs"));
            }
        }
    }
    for source in &mut sources {
        if test_files.contains(&source.path) {
            source.tests = vec![(0, source.code.len())];
        }
    }
    sources
}

/// The directory in which a file's modules lie.
fn children(path: &str) -> &str {
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "mod.rs" | "lib.rs" | "main.rs" => dir,
        _ => path.trim_end_matches(".rs"),
    }
}

/// The end of the block whose `{` is the first at or after `from`; the end of the item where a `;` comes first.
pub fn item_end(code: &str, from: usize) -> usize {
    let (mut depth, mut nested) = (0usize, 0usize);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' if depth == 0 => nested += 1,
            b')' | b']' if depth == 0 => nested = nested.saturating_sub(1),
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 && nested == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn test_regions(code: &str) -> Vec<(usize, usize)> {
    let marks = code.match_indices("#[cfg(test)]");
    marks
        .map(|(at, mark)| (at, item_end(code, at + mark.len())))
        .collect()
}

/// Blanks comments, strings and character literals; keeps length and lines.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at + 1..].starts_with(b"/") => end_of_line(bytes, at),
            b'/' if bytes[at + 1..].starts_with(b"*") => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if !after_word(bytes, at) => match raw_string(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => end_of_char(bytes, at).unwrap_or(at),
            _ => at,
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("whole literals are blanked")
}

fn after_word(bytes: &[u8], at: usize) -> bool {
    at > 0
        && (bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'b' || bytes[at - 1] == b'_')
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    let length = bytes[at..].iter().position(|&b| b == b'\n');
    length.map_or(bytes.len(), |length| at + length)
}

fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    let (mut here, mut depth) = (at, 0usize);
    while here < bytes.len() {
        if bytes[here..].starts_with(b"/*") {
            depth += 1;
            here += 2;
        } else if bytes[here..].starts_with(b"*/") {
            depth -= 1;
            here += 2;
            if depth == 0 {
                return here;
            }
        } else {
            here += 1;
        }
    }
    here
}

fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let from = at + 2 + hashes;
    let length = bytes[from..]
        .windows(close.len())
        .position(|window| window == close.as_bytes());
    Some(length.map_or(bytes.len(), |length| from + length + close.len()))
}

/// None for a lifetime.
fn end_of_char(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = std::str::from_utf8(&bytes[at + 1..]).ok()?;
    let first = rest.chars().next()?;
    if first == '\\' {
        let close = rest[2..].find('\'')?;
        return Some(at + 1 + 2 + close + 1);
    }
    rest[first.len_utf8()..]
        .starts_with('\'')
        .then(|| at + 1 + first.len_utf8() + 1)
}

#[test]
fn strings_and_comments_are_blanked() {
    let check = |text: &str, code: &str| assert_eq!(blank(text), code, "{text}");
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ d */ e", "a                   e");
    check(r#"x("a\"b") y"#, r#"x(      ) y"#);
    check("r#\"a\"b\"# c", "         c");
    check(
        "'a' 'b fn f<'a>(x: &'a str) '\\''",
        "    'b fn f<'a>(x: &'a str)     ",
    );
    check("'\u{e9}' x", "     x");
    check("br\"x\" y", "b     y");
}

#[test]
fn tests_are_found() {
    let source = Source::new(
        "src/a.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n",
    );
    let at = |word| source.text.find(word).unwrap();
    assert!(!source.is_test(at("fn a")));
    assert!(source.is_test(at("fn b")));
    assert!(!source.is_test(at("fn c")));
    assert_eq!(source.place(at("fn c")), "src/a.rs:4");
}
