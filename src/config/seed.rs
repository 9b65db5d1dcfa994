//! `[[role.NAME.seed]]`: files made on this node from replicated templates; and `[node.vars]`, the words they may use.
//!
//! Promise: as `read`: everything checked, every complaint made, one for each mistake. A file that would lie in a dataset is
//! refused once all datasets are known (`datasets`).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use toml_edit::{ArrayOfTables, InlineTable, Item, Table, Value, value};

use super::datasets::Paths;
use super::document::{Found, Section};
use super::play::{argv, timeout};
use super::read::absolute;
use crate::logic::name::{DatasetName, nearest};
use crate::logic::seed::{
    AFTER_TIMEOUT_DEFAULT, Engine, GIVEN, Seed, VAR_BYTES_MAX, WORD_LEAST, When, is_word,
};
use crate::logic::units;

/// `known` are the datasets of the role; none where they are wrong themselves.
pub(super) fn seeds<'a>(
    found: &Found<'a>,
    known: Option<&[DatasetName]>,
    paths: &mut Paths<'a>,
) -> Option<Vec<Seed>> {
    let mut seeds = Vec::new();
    let mut whole = true;
    for section in found.clone().sections()? {
        match seed(section, known, paths) {
            Some(seed) => seeds.push(seed),
            None => whole = false,
        }
    }
    whole.then_some(seeds)
}

fn seed<'a>(
    mut section: Section<'a>,
    known: Option<&[DatasetName]>,
    paths: &mut Paths<'a>,
) -> Option<Seed> {
    let from = section
        .need("from", "\"DATASET/path/of/the/template\"")
        .and_then(|found| from(&found, known));
    let to = section
        .need("to", "\"/path/of/the/file\"")
        .and_then(|found| {
            let path = found.parsed(absolute)?;
            paths.seeded(found, &path);
            Some(path)
        });
    let engine = section.get("engine").map(|found| {
        let of = |text: &str| Engine::ALL.into_iter().find(|known| known.word() == text);
        found.parsed(|text| of(text).ok_or("not an engine: use \"percent\" or \"jinja\""))
    });
    let when = section.get("when").map(|found| {
        let of = |text: &str| When::ALL.into_iter().find(|known| known.word() == text);
        found.parsed(|text| of(text).ok_or("use \"always\", \"active\" or \"standby\""))
    });
    let mode = section.get("mode").map(|found| found.parsed(mode));
    let owner = section.get("owner").map(|found| found.parsed(owner));
    let after = section.get("after").map(|found| argv(&found));
    let limit = section.get("timeout").map(|found| timeout(&found));
    section.finish();
    Some(Seed {
        from: from?,
        to: to?,
        engine: engine.unwrap_or(Some(Engine::Percent))?,
        // Present but wrong is none; absent is not.
        mode: mode.map_or(Some(None), |mode| mode.map(Some))?,
        owner: owner.map_or(Some(None), |owner| owner.map(Some))?,
        after: after.map_or(Some(None), |after| after.map(Some))?,
        timeout: limit.unwrap_or(Some(AFTER_TIMEOUT_DEFAULT))?,
        when: when.unwrap_or(Some(When::Always))?,
    })
}

/// A dataset's name and a path in it: alike on all nodes, where the live path may differ and is empty on a standby.
fn from(found: &Found, known: Option<&[DatasetName]>) -> Option<(DatasetName, PathBuf)> {
    let (dataset, path) = found.parsed(|text| {
        if text.starts_with('/') {
            return Err(
                "begins with the name of a dataset, not with /: write \"DATASET/path/in/it\""
                    .to_owned(),
            );
        }
        let (dataset, path) = text.split_once('/').ok_or("write \"DATASET/path/in/it\"")?;
        let dataset = DatasetName::parse(dataset).map_err(|error| error.to_string())?;
        let plain = |part: Component| matches!(part, Component::Normal(_));
        let path: PathBuf = Path::new(path).components().collect();
        if path.as_os_str().is_empty() || !path.components().all(plain) || text.contains('\0') {
            return Err("write \"DATASET/path/in/it\", without \"..\"".to_owned());
        }
        Ok((dataset, path))
    })?;
    if let Some(known) = known.filter(|known| !known.contains(&dataset)) {
        let near = nearest(dataset.as_str(), known.iter().map(DatasetName::as_str));
        let names: Vec<&str> = known.iter().map(DatasetName::as_str).collect();
        found.refuse(match near {
            Some(near) => format!("the role has no dataset {dataset}: did you mean \"{near}\"?"),
            None => format!(
                "the role has no dataset {dataset}: it has {}",
                names.join(", ")
            ),
        });
        return None;
    }
    Some((dataset, path))
}

fn mode(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "not permissions in octal digits, such as \"0640\" (at most 0777)";
    let digits = text.len() <= 4 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| digits);
    mode.filter(|mode| *mode <= 0o777).ok_or(WRONG)
}

fn owner(text: &str) -> Result<(String, String), &'static str> {
    let good = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '$'))
    };
    match text.split_once(':') {
        Some((user, group)) if good(user) && good(group) => Ok((user.to_owned(), group.to_owned())),
        _ => Err("not a user and a group, such as \"root:www-data\""),
    }
}

/// `[node.vars]`: texts by name.
pub(super) fn vars(found: Found) -> Option<BTreeMap<String, String>> {
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    let mut whole = true;
    for found in found.section()?.entries() {
        let word = found.name.to_ascii_uppercase();
        if !is_word(&word) {
            found.refuse_key(format!(
                "not a name for a word: letters, digits and '_', at least {WORD_LEAST}, a letter first"
            ));
        } else if GIVEN.contains(&word.as_str()) {
            found.refuse_key(format!("%{word}% has a meaning already: take another name"));
        } else if vars.keys().any(|name| name.eq_ignore_ascii_case(&word)) {
            found.refuse_key(format!(
                "%{word}% is there already: capitals make no difference"
            ));
        }
        let text = found.text().filter(|text| {
            let long = text.len() > VAR_BYTES_MAX;
            if long {
                found.refuse_key(format!("longer than {VAR_BYTES_MAX} bytes"));
            }
            !long
        });
        match text {
            Some(text) => {
                vars.insert(found.name.to_owned(), text.to_owned());
            }
            None => whole = false,
        }
    }
    whole.then_some(vars)
}

/// Writes the words into the node's table; nothing where there are none.
pub(super) fn show_vars(vars: &BTreeMap<String, String>, node: &mut Table) {
    if vars.is_empty() {
        return;
    }
    let mut table = Table::new();
    for (name, text) in vars {
        table.insert(name, value(text));
    }
    node["vars"] = Item::Table(table);
}

/// Writes the list into a role's table; nothing where there is none.
pub(super) fn show(seeds: &[Seed], role: &mut Table) {
    if seeds.is_empty() {
        return;
    }
    let mut list = ArrayOfTables::new();
    for seed in seeds {
        let mut table = InlineTable::new();
        table.insert("from", seed.source().into());
        // From a TOML text, which is UTF-8: nothing is lost here.
        table.insert("to", seed.to.to_string_lossy().as_ref().into());
        table.insert("engine", seed.engine.word().into());
        table.insert("when", seed.when.word().into());
        if let Some(mode) = seed.mode {
            table.insert("mode", format!("{mode:04o}").into());
        }
        if let Some((user, group)) = &seed.owner {
            table.insert("owner", format!("{user}:{group}").into());
        }
        if let Some(after) = &seed.after {
            table.insert(
                "after",
                Value::from(after.iter().collect::<toml_edit::Array>()),
            );
            table.insert("timeout", units::exact_duration(seed.timeout).into());
        }
        list.push(table.into_table());
    }
    role["seed"] = Item::ArrayOfTables(list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use expect_test::{Expect, expect};

    const ROLE: &str = "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = { last = 3 }\n\
                        [role.web.dataset.files]\nbtrfs = \"/srv/web\"\nstandby-view = \"/srv/view\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse(&format!("{ROLE}{text}\n"), Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).err().unwrap_or_else(|| "accepted".to_owned()));
    }

    /// Further keys of one that is right but for them.
    fn refused_with(keys: &str, expected: Expect) {
        let text = format!("[[role.web.seed]]\nfrom = \"files/a\"\nto = \"/etc/a\"\n{keys}");
        refused(&text, expected);
    }

    #[test]
    fn what_is_read_is_shown() {
        for text in [
            "",
            "[node.vars]\nSITE = \"north\"\nport = \"a \\\"b\\\"\"",
            "[[role.web.seed]]\nfrom = \"files/etc/a.conf\"\nto = \"/etc/a.conf\"",
            "[[role.web.seed]]\nfrom = \"files/a\"\nto = \"/etc/a\"\nengine = \"jinja\"\nmode = \"640\"\nowner = \"root:adm\"\n\
             after = \"systemctl reload a\"\ntimeout = \"2m\"\nwhen = \"active\"\n\
             [[role.web.seed]]\nfrom = \"files/b\"\nto = \"/etc/b\"\nafter = [\"a b\", \"c\"]\nwhen = \"standby\"",
        ] {
            let config = parse(text).unwrap();
            let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
            assert_eq!(config, again, "{text}\n{}", config.show());
        }
        let inline = "seed = [{ from = \"files/a\", to = \"/etc/a\" }]";
        let text = ROLE.replace("every", &format!("{inline}\nevery"));
        let config = Config::parse(&text, Path::new("/c.toml")).unwrap();
        let seed = &config.roles.values().next().unwrap().seeds[0];
        assert_eq!((seed.source().as_str(), seed.mode), ("files/a", None));
    }

    #[test]
    fn what_is_refused() {
        refused(
            "[[role.web.seed]]\nfrom = \"/srv/web/a\"\n[[role.web.seed]]\nfrom = \"file/a\"\nto = \"etc/a\"",
            expect![[r#"
                /c.toml:10: role.web.seed.to: missing: write to = "/path/of/the/file"
                /c.toml:11: role.web.seed.from = "/srv/web/a": begins with the name of a dataset, not with /: write "DATASET/path/in/it"
                /c.toml:13: role.web.seed.from = "file/a": the role has no dataset file: did you mean "files"?
                /c.toml:14: role.web.seed.to = "etc/a": not an absolute path: it must begin with /"#]],
        );
        refused(
            "[[role.web.seed]]\nfrom = \"files/../a\"\nto = \"/srv/web/a\"\n\
             [[role.web.seed]]\nfrom = \"files\"\nto = \"/srv/view/a\"\n\
             [[role.web.seed]]\nfrom = \"files/a\"\nto = \"/etc/a\"\n\
             [[role.web.seed]]\nfrom = \"files/b\"\nto = \"/etc/a\"",
            expect![[r#"
                /c.toml:11: role.web.seed.from = "files/../a": write "DATASET/path/in/it", without ".."
                /c.toml:12: role.web.seed.to = "/srv/web/a": inside the dataset at /srv/web, which is the same on all nodes: make it elsewhere
                /c.toml:14: role.web.seed.from = "files": write "DATASET/path/in/it"
                /c.toml:15: role.web.seed.to = "/srv/view/a": inside the dataset at /srv/view, which is the same on all nodes: make it elsewhere
                /c.toml:21: role.web.seed.to = "/etc/a": line 18 makes the same file"#]],
        );
        refused(
            "[role.web.seed]\nfrom = \"files/a\"",
            expect![
                "/c.toml:10: role.web.seed: must be a list of tables: write [[...seed]], in double brackets"
            ],
        );
        refused_with(
            "mode = \"rw\"\nowner = \"root\"\nengine = \"perl\"",
            expect![[r#"
                /c.toml:13: role.web.seed.mode = "rw": not permissions in octal digits, such as "0640" (at most 0777)
                /c.toml:14: role.web.seed.owner = "root": not a user and a group, such as "root:www-data"
                /c.toml:15: role.web.seed.engine = "perl": not an engine: use "percent" or "jinja""#]],
        );
        refused_with(
            "mode = \"4755\"\nwhen = \"now\"\nafter = \"\"\nmod = 1",
            expect![[r#"
                /c.toml:13: role.web.seed.mode = "4755": not permissions in octal digits, such as "0640" (at most 0777)
                /c.toml:14: role.web.seed.when = "now": use "always", "active" or "standby"
                /c.toml:15: role.web.seed.after = "": empty: write a command, such as "/usr/local/bin/app-start --quiet"
                /c.toml:16: role.web.seed.mod: unknown key: did you mean "mode"?"#]],
        );
    }

    #[test]
    fn words_that_are_refused() {
        refused(
            "[node.vars]\nNODE = \"a\"\nab = \"c\"\n\"a b c\" = \"d\"\nport = 80\nsite = \"x\"\nSITE = \"y\"",
            expect![[r#"
                /c.toml:11: node.vars.NODE: %NODE% has a meaning already: take another name
                /c.toml:12: node.vars.ab: not a name for a word: letters, digits and '_', at least 3, a letter first
                /c.toml:13: node.vars.a b c: not a name for a word: letters, digits and '_', at least 3, a letter first
                /c.toml:14: node.vars.port = 80: is a number, not text in quotes
                /c.toml:16: node.vars.SITE: %SITE% is there already: capitals make no difference"#]],
        );
    }
}
