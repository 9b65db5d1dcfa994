//! Keys of a dump of kind `sqlite`.

use std::path::PathBuf;

use toml_edit::{Array, Table, value};

use super::{choice, or_none, path_value};
use crate::config::document::{Found, Section};
use crate::config::read::absolute;
use crate::logic::dump::sqlite::{FILES_MAX, Mode, Sqlite, fixed_part};

pub(super) fn read(section: &mut Section) -> Option<Sqlite> {
    let mode = section.get("mode").map(|found| {
        let words = [("freeze", Mode::Freeze), ("backup", Mode::Backup)];
        choice(&found, &words)
    });
    let mode = mode.unwrap_or(Some(Mode::Freeze));
    let to = section
        .get("to")
        .map(|found| (found.clone(), found.parsed(absolute)));
    let files = section
        .need("files", "[\"/path/of/a/database\", \"/path/of/*.db\"]")
        .and_then(|found| files(&found));
    match (mode, &to) {
        (Some(Mode::Backup), None) => section.complain(
            "to",
            "missing: mode = \"backup\" writes into a directory of its own inside a dataset: write to = \"/path\"",
        ),
        (Some(Mode::Freeze), Some((found, _))) => {
            found.refuse_key("mode = \"freeze\" writes nothing: take this out, or write mode = \"backup\"");
        }
        _ => {}
    }
    if let (Some((found, Some(to))), Some(files)) = (&to, &files) {
        let meets = |file: &&PathBuf| file.starts_with(to) || fixed_part(file).starts_with(to);
        if let Some(file) = files.iter().find(meets) {
            found.refuse(format!(
                "holds {}, which is to be dumped: name a directory of its own",
                file.display()
            ));
        }
    }
    Some(Sqlite {
        mode: mode?,
        files: files?,
        to: or_none(to.map(|(_, to)| to))?,
    })
}

fn files(found: &Found) -> Option<Vec<PathBuf>> {
    let words = found.texts()?;
    if words.is_empty() {
        found.refuse("empty: name at least one database");
        return None;
    }
    if words.len() > FILES_MAX {
        found.refuse_key(format!("more than {FILES_MAX} files"));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    let mut whole = true;
    for word in &words {
        let file = word.parsed(|text| {
            let path = absolute(text).map_err(str::to_owned)?;
            match glob::Pattern::new(text) {
                Ok(_) => Ok(path),
                Err(error) => Err(format!("not a pattern of paths: {}", error.msg)),
            }
        });
        whole &= file.is_some();
        files.extend(file);
    }
    whole.then_some(files)
}

pub(super) fn show(sqlite: &Sqlite, table: &mut Table) {
    let files = sqlite.files.iter().map(|file| file.to_string_lossy());
    table["files"] = value(files.map(String::from).collect::<Array>());
    if let Some(to) = &sqlite.to {
        table["to"] = path_value(to);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::dump::tests::{accepted, dump_of, refused};
    use expect_test::expect;

    #[test]
    fn keys() {
        let dump = |keys: &str| dump_of("sqlite", keys);
        for keys in [
            "files = \"/srv/web/a.db\"",
            "mode = \"freeze\"\nfiles = [\"/srv/web/*.db\", \"/srv/web/[ab]/x\"]",
            "mode = \"backup\"\nfiles = [\"/a/*.db\"]\nto = \"/srv/web/copies\"",
        ] {
            accepted(&dump(keys));
        }
        refused(
            &dump(""),
            expect![[
                r#"/c.toml:9: role.web.dump.files: missing: write files = ["/path/of/a/database", "/path/of/*.db"]"#
            ]],
        );
        refused(
            &dump("files = []"),
            expect!["/c.toml:12: role.web.dump.files = []: empty: name at least one database"],
        );
        refused(
            &dump("files = [\"a.db\", \"/a/[\"]"),
            expect![[r#"
            /c.toml:12: role.web.dump.files = "a.db": not an absolute path: it must begin with /
            /c.toml:12: role.web.dump.files = "/a/[": not a pattern of paths: invalid range pattern"#]],
        );
        refused(
            &dump("files = \"/a\"\nto = \"/b\""),
            expect![[
                r#"/c.toml:13: role.web.dump.to: mode = "freeze" writes nothing: take this out, or write mode = "backup""#
            ]],
        );
        refused(
            &dump("files = \"/a\"\nmode = \"backup\""),
            expect![[
                r#"/c.toml:9: role.web.dump.to: missing: mode = "backup" writes into a directory of its own inside a dataset: write to = "/path""#
            ]],
        );
        refused(
            &dump("files = \"/a/b/*.db\"\nmode = \"backup\"\nto = \"/a/b\""),
            expect![[
                r#"/c.toml:14: role.web.dump.to = "/a/b": holds /a/b/*.db, which is to be dumped: name a directory of its own"#
            ]],
        );
    }
}
