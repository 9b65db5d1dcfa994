//! The configuration: no text makes it panic, every complaint has a place, what is accepted reads back equal.

use std::path::Path;

use standin::config::Config;

use super::Target;

pub const TARGET: Target = Target {
    name: "config",
    what: "No configuration makes the reader panic, every complaint has its line, what is shown reads back equal",
    needs_disk: false,
    bytes_max: 8 << 10,
    seeds,
    start: || Box::new(run),
};

const SAMPLE: &str = include_str!("../../../docs/standin.toml");

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let path = Path::new("/c.toml");
    match Config::parse(&text, path) {
        Ok(config) => {
            let shown = config.show();
            let again = Config::parse(&shown, path);
            assert_eq!(again.as_ref(), Ok(&config), "{shown}");
        }
        Err(complaints) => {
            assert!(!complaints.list.is_empty());
            let lines = text.matches('\n').count() + 1;
            for complaint in &complaints.list {
                assert!((1..=lines).contains(&complaint.line), "{complaint:?}");
                assert!(!complaint.what.is_empty());
            }
            assert!(complaints.to_string().lines().count() >= complaints.list.len());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let all: Vec<&str> = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            _ => line,
        })
        .filter(|line| !line.starts_with('#') && !line.is_empty() && !line.starts_with("via"))
        .collect();
    let small = "[node]\nname = \"alder\"\n[peer.birch]\nvia = \"ssh birch\"\n[role.web]\nhome = \"alder\"\n\
        peers = \"birch\"\nevery = \"*/15 8-19 * * 1-5\"\nkeep = { last = 3 }\ndataset.a.btrfs = \"/a\"\n";
    vec![all.join("\n").into_bytes(), small.as_bytes().to_vec()]
}
