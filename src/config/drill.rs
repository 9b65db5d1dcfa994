//! The section `drill` of a role: how it is rehearsed.
//!
//! Promise: as `read`: everything checked, every complaint made, one for each mistake.

use toml_edit::{Array, Item, Table, Value, value};

use super::document::{Element, Found};
use super::play::{argv, timeout, whole_command};
use crate::logic::drill::{Drill, TIMEOUT_DEFAULT};
use crate::logic::schedule::Every;
use crate::logic::units;

pub(super) fn drill(found: Found) -> Option<Drill> {
    let mut section = found.section()?;
    let every = section.get("every").map(|found| times(&found, "drills"));
    let checks = section.get("checks").map(|found| checks(&found));
    let start = section.get("start").map(|found| argv(&found));
    let stop = section.get("stop").map(|found| argv(&found));
    let timeout = section.get("timeout").map(|found| timeout(&found));
    section.finish();
    // Present but wrong is none; absent is not.
    let command = |found: Option<Option<Vec<String>>>| match found {
        None => Some(None),
        Some(command) => command.map(Some),
    };
    Some(Drill {
        every: every.unwrap_or(Some(None))?,
        checks: checks.unwrap_or_else(|| Some(Vec::new()))?,
        start: command(start)?,
        stop: command(stop)?,
        timeout: timeout.unwrap_or(Some(TIMEOUT_DEFAULT))?,
    })
}

/// When something of `what` is due; none: only when somebody asks.
pub(super) fn times(found: &Found, what: &str) -> Option<Option<Every>> {
    match found.parsed(Every::parse)? {
        Every::Manual => Some(None),
        Every::OnChange { .. } => {
            found.refuse(format!(
                "{what} have times: write an interval (\"7d\"), or \"sun 03:30\""
            ));
            None
        }
        every => Some(Some(every)),
    }
}

/// Commands: each a text cut at blanks, or a list of words.
fn checks(found: &Found) -> Option<Vec<Vec<String>>> {
    let mut checks = Vec::new();
    let mut whole = true;
    for element in found.elements()? {
        let words: Vec<String> = match &element {
            Element::Text(word) if word.text.starts_with('-') => {
                word.refuse("an argument alone: write a command and its arguments as a list in the list, [[\"COMMAND\", \"-x\"]]");
                whole = false;
                continue;
            }
            Element::Text(word) => word.text.split_whitespace().map(str::to_owned).collect(),
            Element::List(words) => words.iter().map(|word| word.text.to_owned()).collect(),
        };
        match whole_command(&words) {
            Ok(()) => checks.push(words),
            Err(why) => {
                found.refuse(why);
                whole = false;
            }
        }
    }
    whole.then_some(checks)
}

/// Writes the section into a role's table; nothing where all of it is default.
pub(super) fn show(drill: &Drill, role: &mut Table) {
    if *drill == Drill::default() {
        return;
    }
    let words = |command: &Vec<String>| Value::from(command.iter().collect::<Array>());
    let mut table = Table::new();
    table.set_dotted(true);
    if let Some(every) = &drill.every {
        table["every"] = value(every.to_string());
    }
    if !drill.checks.is_empty() {
        table["checks"] = value(drill.checks.iter().map(words).collect::<Array>());
    }
    if let Some(start) = &drill.start {
        table["start"] = value(words(start));
    }
    if let Some(stop) = &drill.stop {
        table["stop"] = value(words(stop));
    }
    table["timeout"] = value(units::exact_duration(drill.timeout));
    role["drill"] = Item::Table(table);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use expect_test::{Expect, expect};

    const ROLE: &str = "[node]\nname = \"alder\"\n[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = { last = 3 }\n\
                        [role.web.dataset.files]\nbtrfs = \"/srv/web\"\n[role.web.drill]\n";

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse(&format!("{ROLE}{text}\n"), Path::new("/c.toml"));
        config.map_err(|complaints| complaints.to_string())
    }

    fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).err().unwrap_or_else(|| "accepted".to_owned()));
    }

    #[test]
    fn what_is_read_is_shown() {
        for text in [
            "",
            "every = \"manual\"",
            "every = \"7d\"\nchecks = [\"/bin/a b\", [\"sh\", \"-c\", \"test -s $X\"]]\nstart = \"a\"\nstop = [\"b c\"]\ntimeout = \"1m30s\"",
            "checks = \"/bin/a\"",
        ] {
            let config = parse(text).unwrap();
            let again = Config::parse(&config.show(), Path::new("/c.toml")).unwrap();
            assert_eq!(config, again, "{text}\n{}", config.show());
        }
        let config = parse("checks = [\"/bin/a b\", [\"sh\", \"-c\", \"x y\"]]").unwrap();
        let drill = &config.roles.values().next().unwrap().drill;
        assert_eq!(drill.checks, [vec!["/bin/a", "b"], vec!["sh", "-c", "x y"]]);
        assert_eq!(drill.timeout, TIMEOUT_DEFAULT);
    }

    #[test]
    fn what_is_refused() {
        refused(
            "every = \"on-change\"",
            expect![[
                r#"/c.toml:10: role.web.drill.every = "on-change": drills have times: write an interval ("7d"), or "sun 03:30""#
            ]],
        );
        refused(
            "checks = [\"/bin/a\", \"-x\"]",
            expect![[
                r#"/c.toml:10: role.web.drill.checks = "-x": an argument alone: write a command and its arguments as a list in the list, [["COMMAND", "-x"]]"#
            ]],
        );
        refused(
            "checks = [\" \", []]",
            expect![[r#"
            /c.toml:10: role.web.drill.checks = [" ", []]: empty: write a command, such as "/usr/local/bin/app-start --quiet"
            /c.toml:10: role.web.drill.checks = [" ", []]: empty: write a command, such as "/usr/local/bin/app-start --quiet""#]],
        );
        refused(
            "checks = [7, [7]]",
            expect![[r#"
            /c.toml:10: role.web.drill.checks = 7: is a number, not text in quotes
            /c.toml:10: role.web.drill.checks = 7: is a number, not text in quotes"#]],
        );
        refused(
            "timeout = \"0s\"\nstart = \"\"",
            expect![[r#"
            /c.toml:10: role.web.drill.timeout = "0s": must be more than nothing and at most a day
            /c.toml:11: role.web.drill.start = "": empty: write a command, such as "/usr/local/bin/app-start --quiet""#]],
        );
        refused(
            "check = \"/bin/a\"",
            expect![[r#"/c.toml:10: role.web.drill.check: unknown key: did you mean "checks"?"#]],
        );
    }
}
