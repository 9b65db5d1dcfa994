//! The keys of a role that tell what moves with it besides data: `services`, `service`, `addresses`, `ports`, `hooks`.
//!
//! Promise: as `read`: everything checked, every complaint made, one for each mistake. A service that is described and not
//! listed, or listed and not described, is a mistake.

use std::collections::BTreeMap;
use std::time::Duration;

use toml_edit::{Array, InlineTable, Item, Table, Value, value};

use super::document::{Found, Section};
use crate::logic::name::{RoleName, nearest};
use crate::logic::play::{
    Address, CommandService, HOOK_TIMEOUT_DEFAULT, Hook, Moment, Play, Port,
    SERVICE_TIMEOUT_DEFAULT, Service, Unit,
};
use crate::logic::units;

/// Longest a single command may take: more is a mistake for "no limit", and failover would wait for it.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads the keys out of a role.
pub(super) fn play(role: &mut Section) -> Option<Play> {
    let described = role.get("service").map(described);
    let services = role.get("services");
    let services = match (described, services) {
        (None, None) => Some(Vec::new()),
        (Some(described), None) => {
            refuse_unlisted(described.unwrap_or_default().values(), &[]);
            None
        }
        (described, Some(found)) => {
            listed(&found, described.unwrap_or_else(|| Some(Described::new())))
        }
    };
    let addresses = role
        .get("addresses")
        .map(|found| words(&found, Address::parse, |a, b| a.ip == b.ip));
    let ports = role
        .get("ports")
        .map(|found| words(&found, Port::parse, |a, b| a == b));
    let hooks = role.get("hooks").map(hooks);
    Some(Play {
        services: services?,
        addresses: addresses.unwrap_or_else(|| Some(Vec::new()))?,
        ports: ports.unwrap_or_else(|| Some(Vec::new()))?,
        hooks: hooks.unwrap_or_else(|| Some(BTreeMap::new()))?,
    })
}

/// Services that are described, by name; the second is none where the description is wrong.
type Described<'a> = BTreeMap<String, (Found<'a>, Option<CommandService>)>;

fn described(found: Found) -> Option<Described> {
    let mut described = BTreeMap::new();
    for found in found.section()?.entries() {
        // The rules of a role's name: a word that is safe everywhere. Without a dot, it is no unit's.
        if found.name.contains('.') || RoleName::parse(found.name).is_err() {
            found.refuse_key(
                "not a name for a service: use letters, digits, '_' or '-', starting with a letter or digit",
            );
            continue;
        }
        let service = found
            .clone()
            .section()
            .and_then(|section| service(section, found.name));
        described.insert(found.name.to_owned(), (found, service));
    }
    Some(described)
}

fn service(mut section: Section, name: &str) -> Option<CommandService> {
    let mut need = |key, example| section.need(key, example).and_then(|found| argv(&found));
    let start = need("start", "\"COMMAND\"");
    let stop = need("stop", "\"COMMAND\"");
    let health = need(
        "health",
        "\"COMMAND\", which ends with 0 while the service runs",
    );
    let timeout = section.get("timeout").map(|found| timeout(&found));
    section.finish();
    Some(CommandService {
        name: name.to_owned(),
        start: start?,
        stop: stop?,
        health: health?,
        timeout: timeout.unwrap_or(Some(SERVICE_TIMEOUT_DEFAULT))?,
    })
}

fn listed(found: &Found, described: Option<Described>) -> Option<Vec<Service>> {
    let described = described?;
    let (mut services, mut seen, mut whole) = (Vec::new(), Vec::new(), true);
    for word in found.texts()? {
        if seen.contains(&word.text.to_owned()) {
            word.refuse("listed twice");
            continue;
        }
        seen.push(word.text.to_owned());
        let service = match described.get(word.text) {
            Some((_, service)) => service.clone().map(Service::Command),
            None if word.text.contains('.') => word.parsed(Unit::parse).map(Service::Unit),
            None => {
                let near = nearest(word.text, described.keys().map(String::as_str));
                let name = word.text;
                // The one that was meant is listed, misspelt: one mistake.
                seen.extend(near.map(str::to_owned));
                word.refuse(match near {
                    Some(near) => format!("no such service: did you mean \"{near}\"?"),
                    None => format!(
                        "no such service: write \"{name}.service\" for a systemd unit, else describe it in a section of its own, [role.ROLE.service.{name}]"
                    ),
                });
                None
            }
        };
        match service {
            Some(service) => services.push(service),
            None => whole = false,
        }
    }
    refuse_unlisted(described.values(), &seen);
    whole.then_some(services)
}

fn refuse_unlisted<'a, 'b: 'a>(
    described: impl Iterator<Item = &'a (Found<'b>, Option<CommandService>)>,
    listed: &[String],
) {
    for (found, _) in described.filter(|(found, _)| !listed.iter().any(|name| name == found.name)) {
        let name = found.name;
        found.refuse_key(format!(
            "never started: add \"{name}\" to `services`, which tells the order"
        ));
    }
}

fn words<T, E: std::fmt::Display>(
    found: &Found,
    parse: fn(&str) -> Result<T, E>,
    same: fn(&T, &T) -> bool,
) -> Option<Vec<T>> {
    let mut values: Vec<T> = Vec::new();
    for word in found.texts()? {
        let Some(value) = word.parsed(parse) else {
            continue;
        };
        if values.iter().any(|other| same(other, &value)) {
            word.refuse("listed twice");
        }
        values.push(value);
    }
    Some(values)
}

fn hooks(found: Found) -> Option<BTreeMap<Moment, Hook>> {
    let mut section = found.section()?;
    let mut hooks = BTreeMap::new();
    let mut whole = true;
    for moment in Moment::ALL {
        if let Some(found) = section.get(moment.word()) {
            match hook(found) {
                Some(hook) => {
                    hooks.insert(moment, hook);
                }
                None => whole = false,
            }
        }
    }
    section.finish();
    whole.then_some(hooks)
}

/// A command alone, or a table of a command and its limit.
fn hook(found: Found) -> Option<Hook> {
    if found.is_text() || found.is_list() {
        return Some(Hook {
            run: argv(&found)?,
            timeout: HOOK_TIMEOUT_DEFAULT,
        });
    }
    let mut section = found.section()?;
    let run = section
        .need("run", "\"COMMAND\"")
        .and_then(|found| argv(&found));
    let timeout = section.get("timeout").map(|found| timeout(&found));
    section.finish();
    Some(Hook {
        run: run?,
        timeout: timeout.unwrap_or(Some(HOOK_TIMEOUT_DEFAULT))?,
    })
}

pub(super) fn timeout(found: &Found) -> Option<Duration> {
    let timeout = found.parsed(units::parse_duration)?;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        found.refuse("must be more than nothing and at most a day");
    }
    Some(timeout)
}

/// An argument vector: a list, or a text cut at blanks. No shell reads it.
pub(super) fn argv(found: &Found) -> Option<Vec<String>> {
    let words: Vec<String> = if found.is_text() {
        let words = found.text()?.split_whitespace();
        words.map(str::to_owned).collect()
    } else {
        let words = found.texts()?;
        words.iter().map(|word| word.text.to_owned()).collect()
    };
    match whole_command(&words) {
        Ok(()) => Some(words),
        Err(why) => {
            found.refuse(why);
            None
        }
    }
}

/// Why the words are no command.
pub(super) fn whole_command(words: &[String]) -> Result<(), &'static str> {
    if words.first().is_none_or(String::is_empty) {
        return Err("empty: write a command, such as \"/usr/local/bin/app-start --quiet\"");
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err("a command cannot hold a NUL");
    }
    Ok(())
}

/// Writes the keys into a role's table; nothing where nothing moves but data.
pub(super) fn show(play: &Play, role: &mut Table) {
    let list = |words: Vec<String>| value(words.into_iter().collect::<Array>());
    if !play.services.is_empty() {
        let names = play
            .services
            .iter()
            .map(|service| service.name().to_owned());
        role["services"] = list(names.collect());
    }
    if !play.addresses.is_empty() {
        role["addresses"] = list(play.addresses.iter().map(ToString::to_string).collect());
    }
    if !play.ports.is_empty() {
        role["ports"] = list(play.ports.iter().map(ToString::to_string).collect());
    }
    if !play.hooks.is_empty() {
        let mut hooks = Table::new();
        hooks.set_dotted(true);
        for (moment, hook) in &play.hooks {
            let mut table = InlineTable::new();
            table.insert("run", Value::from(hook.run.iter().collect::<Array>()));
            table.insert("timeout", units::exact_duration(hook.timeout).into());
            hooks[moment.word()] = value(table);
        }
        role["hooks"] = Item::Table(hooks);
    }
    let mut services = Table::new();
    services.set_dotted(true);
    for service in &play.services {
        let Service::Command(service) = service else {
            continue;
        };
        let argv = |words: &[String]| Value::from(words.iter().collect::<Array>());
        let mut table = InlineTable::new();
        table.insert("start", argv(&service.start));
        table.insert("stop", argv(&service.stop));
        table.insert("health", argv(&service.health));
        table.insert("timeout", units::exact_duration(service.timeout).into());
        services.insert(&service.name, value(table));
    }
    if !services.is_empty() {
        role["service"] = Item::Table(services);
    }
}
