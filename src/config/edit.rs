//! Changes a configuration file's text, keeping everything a person wrote: comments, order, blank lines.
//!
//! Promise: text in, text out; what is not named in the call is not touched. The caller checks the result with
//! `Config::parse` before it replaces the file (see `store`).

use anyhow::{Result, anyhow};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, value};

use super::read;
use crate::error::{Code, Failure};
use crate::logic::name::NodeName;

/// What becomes of roles that name the peer being removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InRoles {
    /// Nothing is changed, and the error names the roles.
    Refuse,
    /// The peer is taken out of their `peers` too. A role whose home it is still refuses: only a person can say where such
    /// a role is to live.
    Remove,
}

/// Adds `[peer.NAME]`, or updates its key and, where one is given, its address. Other keys of the peer stay; an address
/// given here takes the place of a `via`.
pub fn set_peer(text: &str, name: &NodeName, address: Option<&str>, key: &str) -> Result<String> {
    for checked in [
        read::fingerprint(key).err(),
        address.and_then(|a| read::address(a).err()),
    ] {
        if let Some(why) = checked {
            return Err(anyhow!("peer {name}: {why}"));
        }
    }
    let mut document = parse(text)?;
    let peers = document
        .entry("peer")
        .or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        })
        .as_table_like_mut()
        .ok_or_else(|| not_a_table("peer"))?;
    let peer = peers
        .entry(name.as_str())
        .or_insert(Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or_else(|| not_a_table(&format!("peer.{name}")))?;
    if let Some(address) = address {
        put(peer, "address", address);
        peer.remove("via");
    }
    put(peer, "key", key);
    Ok(document.to_string())
}

/// Removes `[peer.NAME]`. By default refuses while a role names the peer: such a role would stop being replicated, which
/// nobody should find out later.
pub fn remove_peer(text: &str, name: &NodeName, in_roles: InRoles) -> Result<String> {
    let mut document = parse(text)?;
    let missing = || Failure::new(Code::NotFound, format!("the config has no [peer.{name}]"));
    let mut listed = Vec::new();
    let roles = document.get_mut("role").and_then(Item::as_table_like_mut);
    for (role, item) in roles.into_iter().flat_map(TableLike::iter_mut) {
        let Some(role_table) = item.as_table_like_mut() else {
            continue;
        };
        if role_table.get("home").and_then(Item::as_str) == Some(name.as_str()) {
            return Err(
                Failure::new(Code::Refused, format!("{name} is the home of role {role}"))
                    .hint("give the role another home, or remove it, first")
                    .into(),
            );
        }
        if unlist(role_table, name) {
            listed.push(role.to_string());
        }
    }
    let peers = document.get_mut("peer").and_then(Item::as_table_like_mut);
    let peers = peers.ok_or_else(missing)?;
    peers.remove(name.as_str()).ok_or_else(missing)?;
    if peers.is_empty() {
        document.remove("peer");
    }
    if in_roles == InRoles::Refuse && !listed.is_empty() {
        return Err(Failure::new(
            Code::Refused,
            format!("{name} is still a peer of role {}", listed.join(", ")),
        )
        .hint(format!("take \"{name}\" out of `peers` there first"))
        .into());
    }
    Ok(document.to_string())
}

/// Takes the peer out of a role's `peers`; whether it was there.
fn unlist(role: &mut dyn TableLike, name: &NodeName) -> bool {
    let Some(peers) = role.get_mut("peers") else {
        return false;
    };
    if peers.as_str() == Some(name.as_str()) {
        *peers = value(Array::new());
        return true;
    }
    let Some(list) = peers.as_array_mut() else {
        return false;
    };
    let before = list.len();
    list.retain(|peer| peer.as_str() != Some(name.as_str()));
    // The first of a list has no blank before it; without this, the second would keep its own.
    if let Some(first) = list.get_mut(0) {
        if first.decor().prefix().and_then(|p| p.as_str()) == Some(" ") {
            first.decor_mut().set_prefix("");
        }
    }
    list.len() < before
}

/// Sets a text, keeping the comment behind an old one.
fn put(table: &mut dyn TableLike, key: &str, text: &str) {
    let mut new = toml_edit::Value::from(text);
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(key, Item::Value(new));
}

fn parse(text: &str) -> Result<DocumentMut> {
    text.parse::<DocumentMut>()
        .map_err(|error| anyhow!("the config is not TOML: {}", error.message()))
}

fn not_a_table(key: &str) -> anyhow::Error {
    anyhow!("`{key}` in the config is not a table")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    const TEXT: &str = r#"# alder's own
[node]
name = "alder" # not a typo

[peer.birch]
# behind NAT
via = "ssh birch standin link --stdio"
key = "old" # of last year

[role.web]
home = "alder"
peers = ["birch", "cedar"]  # both
keep = { last = 3 }
"#;

    fn name(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    fn check(result: Result<String>, expected: Expect) {
        expected.assert_eq(&result.unwrap_or_else(|error| format!("{error:#}")));
    }

    #[test]
    fn a_key_is_replaced_and_comments_stay() {
        check(
            set_peer(TEXT, &name("birch"), None, KEY),
            expect![[r##"
                # alder's own
                [node]
                name = "alder" # not a typo

                [peer.birch]
                # behind NAT
                via = "ssh birch standin link --stdio"
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" # of last year

                [role.web]
                home = "alder"
                peers = ["birch", "cedar"]  # both
                keep = { last = 3 }
            "##]],
        );
    }

    #[test]
    fn an_address_takes_the_place_of_a_command() {
        let text = set_peer(TEXT, &name("birch"), Some("birch:7321"), KEY).unwrap();
        assert!(
            text.contains("address = \"birch:7321\"") && !text.contains("via"),
            "{text}"
        );
    }

    #[test]
    fn a_new_peer_comes_last() {
        check(
            set_peer(TEXT, &name("cedar"), Some("cedar:7321"), KEY),
            expect![[r##"
                # alder's own
                [node]
                name = "alder" # not a typo

                [peer.birch]
                # behind NAT
                via = "ssh birch standin link --stdio"
                key = "old" # of last year

                [peer.cedar]
                address = "cedar:7321"
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

                [role.web]
                home = "alder"
                peers = ["birch", "cedar"]  # both
                keep = { last = 3 }
            "##]],
        );
        check(
            set_peer(
                "[node]\nname = \"alder\"\n",
                &name("www.cedar.org"),
                None,
                KEY,
            ),
            expect![[r#"
                [node]
                name = "alder"

                [peer."www.cedar.org"]
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            "#]],
        );
    }

    #[test]
    fn nonsense_is_refused() {
        check(
            set_peer(TEXT, &name("birch"), None, "SHA256:x"),
            expect![[
                r#"peer birch: not a key fingerprint: "SHA256:" and 43 letters and digits, as `standin pair` prints it"#
            ]],
        );
        check(
            set_peer(TEXT, &name("birch"), Some("birch"), KEY),
            expect![[
                r#"peer birch: not host:port, such as "birch.example.org:7321" or "[2001:db8::7]:7321""#
            ]],
        );
        check(
            set_peer("peer = 3", &name("birch"), None, KEY),
            expect!["`peer` in the config is not a table"],
        );
        check(
            set_peer("peer = ", &name("birch"), None, KEY),
            expect![
                "the config is not TOML: string values must be quoted, expected literal string"
            ],
        );
    }

    #[test]
    fn a_peer_that_a_role_names_stays_unless_told_otherwise() {
        check(
            remove_peer(TEXT, &name("birch"), InRoles::Refuse),
            expect!["birch is still a peer of role web"],
        );
        check(
            remove_peer(TEXT, &name("birch"), InRoles::Remove),
            expect![[r##"
                # alder's own
                [node]
                name = "alder" # not a typo

                [role.web]
                home = "alder"
                peers = ["cedar"]  # both
                keep = { last = 3 }
            "##]],
        );
        check(
            remove_peer(TEXT, &name("oak"), InRoles::Remove),
            expect!["the config has no [peer.oak]"],
        );
        let at_home = TEXT.replace("home = \"alder\"", "home = \"birch\"");
        check(
            remove_peer(&at_home, &name("birch"), InRoles::Remove),
            expect!["birch is the home of role web"],
        );
    }
}
