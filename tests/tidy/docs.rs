//! Documents that must keep step with the program, and what no tracked file may hold.

use std::fmt::Write;

use clap::CommandFactory;
use expect_test::expect_file;
use standin::cli::Cli;
use standin::error::Code;

use crate::source::{root, tracked};

/// The page docs/exit-codes.md, its sentences being those of the code.
pub fn exit_codes() -> String {
    let source = std::fs::read_to_string(root().join("src/error.rs")).unwrap();
    let mut page = "\
# Exit codes

Every verb ends with one of these.
Scripts may rely on them: a code keeps its meaning, new ones may be added, and an unknown non-zero code means failure.
With `--json` the word stands in `error.code` (docs/json.md).

| code | word | meaning |
|---:|---|---|
"
    .to_owned();
    for code in Code::ALL {
        let meaning = doc_of_variant(&source, code);
        writeln!(page, "| {} | `{}` | {meaning} |", code as u8, code.word()).unwrap();
    }
    page
}

/// The doc comment above a variant of `Code`.
fn doc_of_variant(source: &str, code: Code) -> String {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let variant = format!("{code:?} = {},", code as u8);
    let at = lines.iter().position(|line| *line == variant).unwrap();
    let mut doc: Vec<&str> = lines[..at]
        .iter()
        .rev()
        .map_while(|line| line.strip_prefix("/// "))
        .collect();
    doc.reverse();
    doc.join(" ")
}

/// The page docs/cli.md: the help of the program and of every verb.
pub fn cli() -> String {
    let mut page = "\
# The command line

This page is the help the program prints; `UPDATE_EXPECT=1 cargo test --test tidy` writes it anew.
"
    .to_owned();
    let mut command = Cli::command().term_width(100);
    command.build();
    verb(&mut command, &mut page);
    page
}

fn verb(command: &mut clap::Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or("standin").to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
    write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n")).unwrap();
    let shown = command
        .get_subcommands_mut()
        .filter(|step| !step.is_hide_set());
    for step in shown {
        verb(step, page);
    }
}

#[test]
fn exit_codes_are_documented() {
    expect_file![root().join("docs/exit-codes.md")].assert_eq(&exit_codes());
}

#[test]
fn help_is_documented() {
    expect_file![root().join("docs/cli.md")].assert_eq(&cli());
}

#[test]
fn every_verb_shows_an_example() {
    fn check(command: &clap::Command) {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            help.contains("standin "),
            "{}: no worked example",
            command.get_name()
        );
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

/// Complaints about the names and titles of the decisions.
fn decisions(files: &[(String, String)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, (name, text)) in files.iter().enumerate() {
        let expected = format!("{:04}-", number + 1);
        if !name.starts_with(&expected) || !name.ends_with(".md") {
            complaints.push(format!("{name}: expected {expected}...md"));
        }
        let titles = text.lines().filter(|line| line.starts_with("# ")).count();
        if titles != 1 {
            complaints.push(format!("{name}: {titles} titles, not one"));
        }
        for part in ["## Context", "## Choice", "## What we gave up"] {
            if !text.contains(part) {
                complaints.push(format!("{name}: has no part {part:?}"));
            }
        }
    }
    complaints
}

#[test]
fn decisions_are_numbered() {
    let dir = root().join("docs/decisions");
    let names = tracked();
    let names = names
        .iter()
        .filter_map(|name| name.strip_prefix("docs/decisions/"));
    let files: Vec<(String, String)> = names
        .map(|name| {
            (
                name.to_owned(),
                std::fs::read_to_string(dir.join(name)).unwrap(),
            )
        })
        .collect();
    assert!(!files.is_empty());
    assert_eq!(decisions(&files), [] as [String; 0]);
    let bad = [("0002-x.md".to_owned(), "# a\n# b\n".to_owned())];
    assert_eq!(decisions(&bad).len(), 5);
}

/// Names of `[dependencies]` that the text does not mention in backticks.
fn unexplained(manifest: &str, text: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().unwrap();
    let names = ["dependencies", "dev-dependencies"]
        .into_iter()
        .filter_map(|part| table.get(part)?.as_table())
        .flat_map(|part| part.keys());
    names
        .filter(|name| !text.contains(&format!("`{name}`")))
        .cloned()
        .collect()
}

#[test]
fn dependencies_have_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let text = std::fs::read_to_string(root().join("docs/decisions/0001-dependencies.md")).unwrap();
    assert_eq!(unexplained(&manifest, &text), [] as [String; 0]);
    assert_eq!(
        unexplained("[dependencies]\na = \"1\"\nb = \"1\"\n", "`b`"),
        ["a"]
    );
}

/// Paths that only exist on somebody's own machine.
fn machine_paths(text: &str) -> Vec<String> {
    let starts = ["work/", "root/", "tmp/wt", "home/"].map(|rest| format!("/{rest}"));
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for start in &starts {
            for (at, _) in line.match_indices(start.as_str()) {
                let before = line[..at].chars().next_back();
                let absolute =
                    before.is_none_or(|c| !c.is_alphanumeric() && !"._-}>$*~".contains(c));
                if absolute {
                    found.push(format!("line {}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    found
}

#[test]
fn no_path_of_a_machine_is_tracked() {
    let mut complaints = Vec::new();
    for name in tracked() {
        // Binary samples have no lines to read.
        let Ok(text) = std::fs::read_to_string(root().join(&name)) else {
            continue;
        };
        complaints.extend(
            machine_paths(&text)
                .into_iter()
                .map(|why| format!("{name}: {why}")),
        );
    }
    assert_eq!(complaints, [] as [String; 0]);
    let check =
        |line: String, found: usize| assert_eq!(machine_paths(&line).len(), found, "{line}");
    check(format!("see /{}main", "work/"), 1);
    check(format!("\"/{}x\"", "root/"), 1);
    check("staging/point/.work/files".into(), 0);
    check(format!("<dir>/{}x", "work/"), 0);
}

/// Relative links of a page that lead nowhere.
fn dead_links(page: &str, text: &str) -> Vec<String> {
    let dir = root().join(page);
    let dir = dir.parent().unwrap();
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target.split('#').next().unwrap_or(""))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !dir.join(target).exists())
        .map(|target| format!("{page}: {target}"))
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let pages = tracked().into_iter().filter(|name| name.ends_with(".md"));
    let dead: Vec<String> = pages
        .flat_map(|page| dead_links(&page, &std::fs::read_to_string(root().join(&page)).unwrap()))
        .collect();
    assert_eq!(dead, [] as [String; 0]);
    assert_eq!(
        dead_links(
            "README.md",
            "[a](Cargo.toml) [b](nowhere.md) [c](https://x)"
        )
        .len(),
        1
    );
}
