//! docs/standin.toml keeps in step with the program: it is accepted as it stands and with every commented key set, the
//! defaults it tells are the real ones, and no key is left out of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;

use standin::config::Config;
use standin::logic::name::RoleName;

const SAMPLE: &str = include_str!("../docs/standin.toml");

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/docs/standin.toml")).unwrap_or_else(|e| panic!("{e}"))
}

/// The sample with the "#" taken from the keys whose lines pass. Keys below a commented heading go with it.
fn uncommented(take: impl Fn(&str) -> bool) -> String {
    let mut heading = None;
    let line = |line: &str| {
        let Some(key) = line.strip_prefix('#') else {
            heading = None;
            return line.to_owned();
        };
        if key.starts_with('[') {
            heading = Some(take(key));
        }
        let is_key = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        match is_key && heading.unwrap_or_else(|| take(key)) {
            true => key.to_owned(),
            false => line.to_owned(),
        }
    };
    SAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Keys of which the sample gives an example, because their default is "none" or another key's value.
const EXAMPLES: [&str; 24] = [
    "advertise",
    "via",
    "bandwidth",
    "keep-standby",
    "keep-for-absent-peers",
    "standby-view",
    "services",
    "service.app",
    "addresses",
    "ports",
    "hooks.before-start",
    "hooks.after-start",
    "hooks.before-stop",
    "hooks.after-stop",
    "verify-every",
    "drill.every",
    "drill.checks",
    "drill.start",
    "drill.stop",
    "mode",
    "owner",
    "after",
    "peers",
    "user",
];

fn is_example(line: &str) -> bool {
    // Of a role; a peer's have a default.
    let of_role = line.starts_with("grants = {");
    let of_watch = line.starts_with("accept = [");
    let is = |key: &&str| line.starts_with(&format!("{key} ="));
    // A section that is commented as a whole.
    let of_role = of_role || line.starts_with('[');
    of_role || of_watch || EXAMPLES.iter().any(is)
}

#[test]
fn the_sample_is_accepted() {
    let config = parse(SAMPLE);
    let names: Vec<&str> = config.roles.keys().map(RoleName::as_str).collect();
    assert_eq!(names, ["syslog.alder", "syslog.birch", "web"]);
    assert_eq!(config.peers.len(), 1);
}

#[test]
fn the_defaults_it_tells_are_the_real_ones() {
    let text = uncommented(|line| !is_example(line));
    assert_ne!(text, SAMPLE.trim_end());
    assert_eq!(parse(&text), parse(SAMPLE));
}

#[test]
fn its_examples_are_accepted() {
    let text = uncommented(|line| !line.starts_with("via ="));
    parse(&text);
    let text = uncommented(is_example).replace("\naddress =", "\n#address =");
    parse(&text);
}

#[test]
fn every_key_is_in_it() {
    let text =
        uncommented(|line| !line.starts_with("via =")) + "\n[peer.cedar]\nvia = \"ssh cedar\"\n";
    for line in parse(&text).show().lines() {
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        let told = |prefix: &str| SAMPLE.contains(&format!("\n{prefix}{key} = "));
        assert!(told("") || told("#"), "{key} is not in docs/standin.toml");
    }
}

#[test]
fn pairing_edits_it_and_takes_the_edit_back() {
    use standin::config::edit::{InRoles, remove_peer, set_peer};
    let cedar = standin::logic::name::NodeName::parse("cedar").unwrap();
    let key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let with = set_peer(SAMPLE, &cedar, Some("cedar:7321"), key).unwrap();
    assert_eq!(parse(&with).peers[&cedar].key.as_deref(), Some(key));
    let without = remove_peer(&with, &cedar, InRoles::Refuse).unwrap();
    assert_eq!(without.trim_end(), SAMPLE.trim_end());
}
