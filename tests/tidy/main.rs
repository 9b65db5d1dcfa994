//! The house rules as tests: walls between modules, purity of `logic`, sizes, bans, and documents in step with the code.
//!
//! Every rule is a function from text to complaints and has a small test that it can fail.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod docs;
mod rules;
mod source;

use source::Source;

fn check(rule: fn(&Source) -> Vec<String>) {
    let sources = source::sources();
    assert!(sources.len() > 20, "the sources were not found");
    let complaints: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn walls_stand() {
    check(rules::walls);
}

#[test]
fn logic_is_pure() {
    check(rules::purity);
}

#[test]
fn files_and_functions_are_small() {
    check(rules::sizes);
}

#[test]
fn files_say_what_they_are_for() {
    check(rules::header);
}

#[test]
fn nothing_banned_is_used() {
    check(rules::bans);
}

#[test]
fn unsafe_code_is_rare_and_explained() {
    check(rules::unsafety);
}

#[test]
fn names_say_something() {
    check(rules::names);
}
