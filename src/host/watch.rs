//! What this machine has of what is watched: files, versions of packages, what commands say.
//!
//! Promise: nothing is read but what a watch names: links are told, not followed, wherever somebody else may have put them;
//! nothing is waited for longer than its limit, and nothing of what it reads or starts is without a bound.
//!
//! It deliberately does not know who asks, nor what is done with it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::user::{self, User};
use crate::logic::drift::{Found, ITEMS_MAX, TEXT_BYTES_MAX, Value, Watch, What, hash};

mod files;
mod run;

/// Texts of all watches that are kept, in bytes: of what is beyond only the hash is.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Longest look at everything together.
const ALL_MAX: Duration = Duration::from_secs(60);

/// How packages are told: name, version, status (dpkg-query(1)).
const FORMAT: &str = "${binary:Package}\t${Version}\t${db:Status-Status}\n";

/// Looks at everything that is watched; by the names of the watches.
pub async fn look(watches: &[Watch]) -> BTreeMap<String, Found> {
    let end = Instant::now() + ALL_MAX;
    let mut kept = KEPT_BYTES_MAX;
    let mut all = BTreeMap::new();
    for watch in watches {
        let mut found = match Instant::now() < end {
            true => one(watch, end).await,
            false => wrong(format!(
                "look at it: the others took {} s",
                ALL_MAX.as_secs()
            )),
        };
        watch.what.word().clone_into(&mut found.kind);
        for value in found.items.values_mut() {
            let Value::Text(text) = value else { continue };
            match kept.checked_sub(text.len()) {
                Some(left) => kept = left,
                None => {
                    let (hash, bytes) = (hash(text.as_bytes()), text.len() as u64);
                    *value = Value::Hash { hash, bytes };
                }
            }
        }
        all.insert(watch.name.clone(), found);
    }
    all
}

async fn one(watch: &Watch, end: Instant) -> Found {
    let left = end.saturating_duration_since(Instant::now());
    match &watch.what {
        What::File(pattern) => {
            let pattern = pattern.clone();
            let found = tokio::task::spawn_blocking(move || files::look(&pattern));
            found
                .await
                .unwrap_or_else(|error| wrong(format!("look at it: {error}")))
        }
        What::Package(pattern) => packages(pattern, watch.timeout.min(left)).await,
        What::Command(argv) => {
            let user = match account(watch) {
                Ok(user) => user,
                Err(why) => return wrong(why),
            };
            match run::run(argv, user, watch.timeout.min(left)).await {
                Ok(ran) => single(value(ran.with_status())),
                Err(why) => wrong(why),
            }
        }
    }
}

fn account(watch: &Watch) -> Result<Option<User>, String> {
    let Some(name) = &watch.user else {
        return Ok(None);
    };
    let user = user::account(name);
    user.map(Some)
        .ok_or_else(|| format!("run it as {name}: there is no such user"))
}

fn wrong(why: String) -> Found {
    Found {
        problem: Some(why),
        ..Found::default()
    }
}

fn single(value: Value) -> Found {
    Found {
        items: BTreeMap::from([(String::new(), value)]),
        ..Found::default()
    }
}

/// What was read, as it can be told.
fn value(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) if text.len() <= TEXT_BYTES_MAX && !text.contains('\0') => Value::Text(text),
        Ok(text) => Value::Hash {
            hash: hash(text.as_bytes()),
            bytes: text.len() as u64,
        },
        Err(error) => Value::Hash {
            hash: hash(error.as_bytes()),
            bytes: error.as_bytes().len() as u64,
        },
    }
}

/// Packages that are installed, with their versions. None of the name is an answer too.
async fn packages(pattern: &str, limit: Duration) -> Found {
    let argv = ["dpkg-query", "-W", "-f", FORMAT, "--", pattern];
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    if super::command::find(&argv[0]).is_none() {
        return wrong(
            "list packages: there is no dpkg-query here (packages are compared where dpkg is)"
                .to_owned(),
        );
    }
    let ran = match run::run(&argv, None, limit).await {
        Ok(ran) => ran,
        Err(why) => return wrong(why),
    };
    let mut found = listed(&String::from_utf8_lossy(&ran.said));
    // 1: nothing of the name is known to it.
    if found.items.is_empty() && !matches!(ran.status.code(), Some(0 | 1)) {
        found.problem = Some(format!(
            "list packages: dpkg-query ended with {}",
            ran.status
        ));
    }
    found
}

fn listed(said: &str) -> Found {
    let mut found = Found::default();
    for line in said.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, version, "installed"] = fields[..] else {
            continue;
        };
        if found.items.len() >= ITEMS_MAX {
            found.more += 1;
            continue;
        }
        let version = Value::Text(format!("{version}\n"));
        found.items.insert(name.to_owned(), version);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::drift::TIMEOUT_DEFAULT;

    fn looked(what: What) -> Found {
        let watch = Watch {
            name: "w".to_owned(),
            what,
            peers: None,
            accept: Vec::new(),
            accept_missing: false,
            secret: false,
            user: None,
            timeout: TIMEOUT_DEFAULT,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(look(&[watch])).remove("w").unwrap()
    }

    /// What a shell says, or why it could not be heard.
    fn said(script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let found = looked(What::Command(argv.to_vec()));
        match (found.items.get(""), found.problem) {
            (Some(Value::Text(text)), None) => text.clone(),
            (Some(value), None) => format!("{value:?}"),
            (_, problem) => problem.unwrap_or_default(),
        }
    }

    #[test]
    fn what_commands_say() {
        assert_eq!(said("echo a; echo b >&2"), "a\nb\n");
        assert_eq!(said("echo off; exit 3"), "off\n(exit status: 3)\n");
        assert_eq!(said("printf '\\377'").split(' ').next(), Some("Hash"));
        assert_eq!(said("cat; pwd; echo $LC_ALL"), "/\nC.UTF-8\n");
        // What it leaves behind neither holds us up nor stays.
        assert_eq!(said("sleep 1000 & echo done"), "done\n");
        let long =
            said("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
        assert!(long.contains("more than"), "{long}");
        let found = looked(What::Command(vec!["/no/such".to_owned()]));
        assert!(found.problem.is_some_and(|why| why.contains("/no/such")));
    }

    #[test]
    fn packages_that_are_installed() {
        let found = listed(
            "nginx\t1.22\tinstalled\nold\t1\tconfig-files\nno packages found\nlibc6:amd64\t2\tinstalled\n",
        );
        let names: Vec<&str> = found.items.keys().map(String::as_str).collect();
        assert_eq!(names, ["libc6:amd64", "nginx"]);
        assert_eq!(found.items["nginx"], Value::Text("1.22\n".to_owned()));
        let found = looked(What::Package("no-such-package-here".to_owned()));
        assert!(found.items.is_empty());
    }
}
