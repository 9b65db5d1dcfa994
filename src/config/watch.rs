//! `[[node.watch]]`: what is compared with other nodes.
//!
//! Promise: as `read`: everything checked, every complaint made, one for each mistake. No two watches have one name.

use std::collections::BTreeSet;
use std::path::Path;

use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, Value};

use super::document::{Found, Section};
use super::play::{argv, timeout};
use super::read::absolute;
use crate::logic::drift::{Mask, NAME_BYTES_MAX, TIMEOUT_DEFAULT, WATCHES_MAX, Watch, What};
use crate::logic::name::{NodeName, nearest};
use crate::logic::units;

/// `known` are the peers there are.
pub(super) fn watches(found: &Found, known: &BTreeSet<NodeName>) -> Option<Vec<Watch>> {
    let mut watches: Vec<Watch> = Vec::new();
    let mut whole = true;
    for section in found.clone().sections()? {
        match watch(section, known, &watches) {
            Some(watch) => watches.push(watch),
            None => whole = false,
        }
    }
    if watches.len() > WATCHES_MAX {
        found.refuse_key(format!(
            "more than {WATCHES_MAX}: watch directories, or take `*`"
        ));
    }
    whole.then_some(watches)
}

fn watch(mut section: Section, known: &BTreeSet<NodeName>, others: &[Watch]) -> Option<Watch> {
    let file = section.get("file");
    let package = section.get("package");
    let command = section.get("command");
    let what = match (file, package, command) {
        (Some(found), None, None) => found.parsed(file_of).map(What::File),
        (None, Some(found), None) => found.parsed(package_of).map(What::Package),
        (None, None, Some(found)) => argv(&found).map(What::Command),
        _ => {
            section.complain("", "write one of `file`, `package` and `command`");
            None
        }
    };
    let named = section.get("name");
    let user = section.get("user");
    let limit = section.get("timeout");
    if !matches!(what, None | Some(What::Command(_))) {
        for found in user.iter().chain(&limit) {
            found.refuse_key("is for a command only");
        }
    }
    let name = match &named {
        Some(found) => found.parsed(name_of),
        None => what.as_ref().map(default_name),
    };
    if let Some(name) = name
        .as_ref()
        .filter(|name| others.iter().any(|other| other.name == **name))
    {
        let what =
            format!("another watch has the name \"{name}\" already: give one of them a `name`");
        match &named {
            Some(found) => found.refuse(what),
            None => section.complain("", what),
        }
    }
    let peers = section.get("peers").map(|found| peers(&found, known));
    let accept = section.get("accept").map(|found| {
        let words = found.texts()?;
        let masks: Vec<_> = words.iter().map(|word| word.parsed(Mask::parse)).collect();
        masks.into_iter().collect::<Option<Vec<Mask>>>()
    });
    let accept_missing = section.get("accept-missing").map(|found| found.flag());
    let secret = section.get("secret").map(|found| found.flag());
    section.finish();
    let user = user.map(|found| found.parsed(user_of));
    let limit = limit.map(|found| timeout(&found));
    Some(Watch {
        name: name?,
        what: what?,
        // Present but wrong is none; absent is not.
        peers: peers.map_or(Some(None), |peers| peers.map(Some))?,
        accept: accept.unwrap_or_else(|| Some(Vec::new()))?,
        accept_missing: accept_missing.unwrap_or(Some(false))?,
        secret: secret.unwrap_or(Some(false))?,
        user: user.map_or(Some(None), |user| user.map(Some))?,
        timeout: limit.unwrap_or(Some(TIMEOUT_DEFAULT))?,
    })
}

fn default_name(what: &What) -> String {
    match what {
        What::File(word) | What::Package(word) => word.clone(),
        What::Command(words) => words.join(" ").chars().take(NAME_BYTES_MAX / 4).collect(),
    }
}

fn file_of(text: &str) -> Result<String, String> {
    let path = absolute(text)?;
    // From a TOML text, which is UTF-8: nothing is lost here.
    let path = path.to_string_lossy().into_owned();
    match Path::new(&path).file_name() {
        None => Err("the whole disk is too much: name a file or a directory".to_owned()),
        Some(_) if path.len() > NAME_BYTES_MAX => {
            Err(format!("longer than {NAME_BYTES_MAX} bytes"))
        }
        Some(_) => Ok(path),
    }
}

fn package_of(text: &str) -> Result<String, &'static str> {
    let good =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | ':' | '*' | '?');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '*')
        && text.chars().all(good)
    {
        true if text.len() <= NAME_BYTES_MAX => Ok(text.to_owned()),
        _ => Err("not a package's name, such as \"nginx\" or \"php8.2-*\""),
    }
}

fn name_of(text: &str) -> Result<String, String> {
    let good = !text.trim().is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.chars().any(char::is_control);
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "not a name: one line of at most {NAME_BYTES_MAX} bytes"
        )),
    }
}

fn user_of(text: &str) -> Result<String, &'static str> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '$');
    match !text.is_empty() && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err("not a user, such as \"nobody\""),
    }
}

fn peers(found: &Found, known: &BTreeSet<NodeName>) -> Option<Vec<NodeName>> {
    let mut peers = Vec::new();
    let mut whole = true;
    for word in found.texts()? {
        let Some(peer) = word.parsed(NodeName::parse) else {
            whole = false;
            continue;
        };
        if !known.contains(&peer) {
            let near = nearest(peer.as_str(), known.iter().map(NodeName::as_str));
            let hint = near.map_or_else(String::new, |near| format!(": did you mean \"{near}\"?"));
            word.refuse(format!("no such peer{hint}"));
        } else if peers.contains(&peer) {
            word.refuse("listed twice");
        }
        peers.push(peer);
    }
    whole.then_some(peers)
}

/// Writes the list into the node's table; nothing where there is none.
pub(super) fn show(watches: &[Watch], node: &mut Table) {
    if watches.is_empty() {
        return;
    }
    let words = |words: &mut dyn Iterator<Item = String>| Value::from(words.collect::<Array>());
    let mut list = ArrayOfTables::new();
    for watch in watches {
        let mut table = InlineTable::new();
        table.insert("name", watch.name.as_str().into());
        let what = match &watch.what {
            What::File(word) | What::Package(word) => word.as_str().into(),
            What::Command(argv) => words(&mut argv.iter().cloned()),
        };
        table.insert(watch.what.word(), what);
        if let Some(peers) = &watch.peers {
            table.insert("peers", words(&mut peers.iter().map(ToString::to_string)));
        }
        if !watch.accept.is_empty() {
            let accept = &mut watch.accept.iter().map(|mask| mask.source().to_owned());
            table.insert("accept", words(accept));
        }
        table.insert("accept-missing", watch.accept_missing.into());
        table.insert("secret", watch.secret.into());
        if let Some(user) = &watch.user {
            table.insert("user", user.as_str().into());
        }
        if matches!(watch.what, What::Command(_)) {
            table.insert("timeout", units::exact_duration(watch.timeout).into());
        }
        list.push(table.into_table());
    }
    node["watch"] = Item::ArrayOfTables(list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use expect_test::{Expect, expect};

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("[node]\nname = \"alder\"\n[peer.birch]\n[peer.cedar]\n{text}\n");
        let config = Config::parse(&text, Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).err().unwrap_or_else(|| "accepted".to_owned()));
    }

    #[test]
    fn what_is_read_is_shown() {
        for text in [
            "",
            "[[node.watch]]\nfile = \"/etc/nginx/*.conf\"\n[[node.watch]]\npackage = \"nginx-*\"\n[[node.watch]]\ncommand = \"nginx -V\"",
            "[[node.watch]]\nname = \"a b\"\nfile = \"/etc//a/\"\npeers = [\"birch\"]\naccept = [\"^host .*\", \"\\\\d+\"]\n\
             accept-missing = true\nsecret = true",
            "[[node.watch]]\ncommand = [\"a\", \"b c\"]\nuser = \"nobody\"\ntimeout = \"1m\"",
        ] {
            let config = parse(text).unwrap();
            let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
            assert_eq!(config, again, "{text}\n{}", config.show());
        }
        let watches =
            parse("[[node.watch]]\ncommand = \"nginx -V\"\n[[node.watch]]\nfile = \"/etc/a/\"")
                .unwrap()
                .node
                .watches;
        assert_eq!(
            (watches[0].name.as_str(), watches[1].name.as_str()),
            ("nginx -V", "/etc/a")
        );
    }

    #[test]
    fn what_is_refused() {
        refused(
            "[[node.watch]]\nname = \"a\"\n[[node.watch]]\nfile = \"/a\"\npackage = \"a\"\n[[node.watch]]\nfile = \"/\"\n\
             [[node.watch]]\nfile = \"etc/../a\"\n[[node.watch]]\npackage = \"--admindir=/x\"",
            expect![[r#"
                /c.toml:5: node.watch: write one of `file`, `package` and `command`
                /c.toml:7: node.watch: write one of `file`, `package` and `command`
                /c.toml:11: node.watch.file = "/": the whole disk is too much: name a file or a directory
                /c.toml:13: node.watch.file = "etc/../a": not an absolute path: it must begin with /
                /c.toml:15: node.watch.package = "--admindir=/x": not a package's name, such as "nginx" or "php8.2-*""#]],
        );
        refused(
            "[[node.watch]]\nfile = \"/a\"\nuser = \"root\"\ntimeout = \"1s\"\n[[node.watch]]\nfile = \"/a\"\n\
             [[node.watch]]\nname = \"/a\"\npackage = \"b\"",
            expect![[r#"
                /c.toml:7: node.watch.user: is for a command only
                /c.toml:8: node.watch.timeout: is for a command only
                /c.toml:9: node.watch: another watch has the name "/a" already: give one of them a `name`
                /c.toml:12: node.watch.name = "/a": another watch has the name "/a" already: give one of them a `name`"#]],
        );
        refused(
            "[[node.watch]]\nfile = \"/a\"\npeers = [\"brich\", \"cedar\", \"cedar\"]\naccept = [\"(\", \".*\"]\nacept = 1",
            expect![[r#"
                /c.toml:7: node.watch.peers = "brich": no such peer: did you mean "birch"?
                /c.toml:7: node.watch.peers = "cedar": listed twice
                /c.toml:8: node.watch.accept = "(": not a regular expression: unclosed group
                /c.toml:8: node.watch.accept = ".*": matches an empty text, which is everywhere: say more, such as ".+"
                /c.toml:9: node.watch.acept: unknown key: did you mean "accept"?"#]],
        );
    }
}
