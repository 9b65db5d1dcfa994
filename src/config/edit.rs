//! Changes a configuration file's text, keeping everything a person wrote: comments, order, blank lines.
//!
//! Promise: text in, text out; what is not named in the call is not touched. A comment is never moved from one section into
//! another: a key that is commented out below the last line of a section would otherwise come to belong to a new neighbour.
//! So new sections go to the end of the file, and a removed one takes along only what stands between its header and its last
//! key. The caller checks the result with `Config::parse` before it replaces the file (see `store`).

use anyhow::{Result, anyhow};
use toml_edit::{Array, Document, DocumentMut, Item, Table, TableLike, Value, value};

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
    read::fingerprint(key).map_err(|why| anyhow!("key of {name}: {why}"))?;
    if let Some(address) = address {
        read::address(address).map_err(|why| anyhow!("address of {name}: {why}"))?;
    }
    let mut document = parse(text)?;
    let there = document
        .get("peer")
        .is_some_and(|peers| peers.get(name.as_str()).is_some());
    if !there {
        let longer = append(text, name, address, key);
        if parse(&longer).is_ok() {
            return Ok(longer);
        }
        // Peers written as dotted keys or inline: a header would define their table twice.
    }
    let peers = document
        .entry("peer")
        .or_insert(Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or_else(|| not_a_table("peer"))?;
    let peer = peers
        .entry(name.as_str())
        .or_insert(value(toml_edit::InlineTable::new()))
        .as_table_like_mut()
        .ok_or_else(|| not_a_table(&format!("peer.{name}")))?;
    if let Some(address) = address {
        // The comments of the command go over to the address.
        let above = peer.key("via").map(|key| key.leaf_decor().clone());
        let behind = peer
            .remove("via")
            .and_then(|via| via.as_value().map(|v| v.decor().clone()));
        put(peer, "address", address);
        if let (Some(above), Some(mut key)) = (above, peer.key_mut("address")) {
            *key.leaf_decor_mut() = above;
        }
        let new = peer.get_mut("address").and_then(Item::as_value_mut);
        if let (Some(behind), Some(new)) = (behind, new) {
            *new.decor_mut() = behind;
        }
    }
    put(peer, "key", key);
    Ok(document.to_string())
}

/// The text with a new section for the peer at its end.
fn append(text: &str, name: &NodeName, address: Option<&str>, key: &str) -> String {
    let blank = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let header = toml_edit::Key::new(name.as_str());
    let mut longer = format!("{text}{blank}[peer.{header}]\n");
    if let Some(address) = address {
        longer += &format!("address = {}\n", Value::from(address));
    }
    longer + &format!("key = {}\n", Value::from(key))
}

/// Removes `[peer.NAME]`. By default refuses while a role names the peer: such a role would stop being replicated, which
/// nobody should find out later.
pub fn remove_peer(text: &str, name: &NodeName, in_roles: InRoles) -> Result<String> {
    let mut document = parse(text)?;
    let known = document
        .get("peer")
        .is_some_and(|peers| peers.get(name.as_str()).is_some());
    if !known {
        let what = format!("the config has no [peer.{name}]");
        return Err(Failure::new(Code::NotFound, what).into());
    }
    let mut listed = Vec::new();
    let roles = document.get_mut("role").and_then(Item::as_table_like_mut);
    for (role, item) in roles.into_iter().flat_map(TableLike::iter_mut) {
        let Some(role_table) = item.as_table_like_mut() else {
            continue;
        };
        if role_table.get("home").and_then(Item::as_str) == Some(name.as_str()) {
            let what = format!("remove {name}: it is the home of role {role}");
            let hint = "give the role another home, or remove it, first";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        if unlist(role_table, name) {
            listed.push(role.to_string());
        }
    }
    if in_roles == InRoles::Refuse && !listed.is_empty() {
        let what = format!(
            "remove {name}: it is still a peer of role {}",
            listed.join(", ")
        );
        let hint = format!("take \"{name}\" out of `peers` there first");
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let text = document.to_string();
    if let Some(shorter) = cut_section(&text, name) {
        return Ok(shorter);
    }
    if let Some(peers) = document.get_mut("peer").and_then(Item::as_table_like_mut) {
        peers.remove(name.as_str());
    }
    Ok(document.to_string())
}

/// The text without the lines from the peer's header to its last key; none when the peer is not written with a header.
fn cut_section(text: &str, name: &NodeName) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let peer = document.get("peer")?.get(name.as_str())?.as_table()?;
    let header = peer.span().filter(|_| !peer.is_dotted())?;
    let last = peer.iter().filter_map(|(_, item)| item.span());
    let end = last.map(|span| span.end).fold(header.end, usize::max);
    let start = text[..header.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
    let (before, after) = (&text[..start], &text[end..]);
    // One of the blank lines on both sides is enough.
    let after = if before.ends_with("\n\n") || before.is_empty() {
        after.strip_prefix('\n').unwrap_or(after)
    } else {
        after
    };
    let shorter = format!("{before}{after}");
    shorter.parse::<DocumentMut>().is_ok().then_some(shorter)
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
        check(
            set_peer(TEXT, &name("birch"), Some("birch:7321"), KEY),
            expect![[r##"
                # alder's own
                [node]
                name = "alder" # not a typo

                [peer.birch]
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" # of last year
                # behind NAT
                address = "birch:7321"

                [role.web]
                home = "alder"
                peers = ["birch", "cedar"]  # both
                keep = { last = 3 }
            "##]],
        );
    }

    #[test]
    fn comments_of_other_sections_stay_there() {
        let text = "[node]\nname = \"alder\"\n#reserve = \"1GiB\"\n";
        let with = set_peer(text, &name("birch"), None, KEY).unwrap();
        expect![[r#"
            [node]
            name = "alder"
            #reserve = "1GiB"

            [peer.birch]
            key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "#]]
        .assert_eq(&with);
        let without = remove_peer(&with, &name("birch"), InRoles::Refuse).unwrap();
        assert_eq!(without.trim_end(), text.trim_end());
    }

    #[test]
    fn peers_without_headers() {
        let text = "peer.birch.via = \"ssh birch\" # odd\n";
        let with = set_peer(text, &name("cedar"), None, KEY).unwrap();
        expect![[r#"
            peer.birch.via = "ssh birch" # odd

            [peer.cedar]
            key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "#]]
        .assert_eq(&with);
        let changed = set_peer(&with, &name("birch"), Some("birch:7321"), KEY).unwrap();
        expect![[r#"
            peer.birch.address = "birch:7321" # odd
            peer.birch.key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

            [peer.cedar]
            key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "#]]
        .assert_eq(&changed);
        check(
            remove_peer(&with, &name("birch"), InRoles::Refuse),
            expect![[r#"

                [peer.cedar]
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            "#]],
        );
        check(
            set_peer(
                "peer = { birch = { via = \"x\" } }",
                &name("cedar"),
                None,
                KEY,
            ),
            expect![[r#"
                peer = { birch = { via = "x" } , cedar = { key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" } }
            "#]],
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

                [role.web]
                home = "alder"
                peers = ["birch", "cedar"]  # both
                keep = { last = 3 }

                [peer.cedar]
                address = "cedar:7321"
                key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
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
                r#"key of birch: not a key fingerprint: "SHA256:" and 43 letters and digits, as `standin pair` prints it"#
            ]],
        );
        check(
            set_peer(TEXT, &name("birch"), Some("birch"), KEY),
            expect![[
                r#"address of birch: not host:port, such as "birch.example.org:7321" or "[2001:db8::7]:7321""#
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
            expect!["remove birch: it is still a peer of role web"],
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
            expect!["remove birch: it is the home of role web"],
        );
    }
}
