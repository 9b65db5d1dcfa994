//! Floating addresses: put on a link, announced, taken away; through ip(8) of iproute2.
//!
//! Promise: `up` that ends well means the address is usable on this machine and the neighbours were told three times; `down`
//! that ends well means it is on none of this machine's links any more, and that no other address went with it. Both may be
//! called again. A crash between leaves the address as ip(8) left it, and nothing of it survives a reboot: an address that
//! floats must not be in the system's own network configuration.
//!
//! IPv6 addresses are not put up with `nodad`: the second that duplicate address detection takes is the price of not
//! answering for an address that another machine still holds. One that is found to be a duplicate is taken away again.
//! IPv4 has no such detection in the kernel; the announcement wins there.
//!
//! It deliberately does not know roles.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use tokio::time::Instant;

use super::announce::{self, Link};
use super::command::{find, harmless};
use crate::error::{Code, Failure};
use crate::logic::play::Address;

/// For one call of ip(8).
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest wait for duplicate address detection: one second and a random part of another, and probes may be configured to be
/// more (RFC 4862, 5.4).
const DETECTION_MAX: Duration = Duration::from_secs(5);

/// How often it is announced, and the pause between.
const ANNOUNCEMENTS: u32 = 3;
const ANNOUNCE_EVERY: Duration = Duration::from_millis(200);

/// A network link as `ip -j addr` lists it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Listed {
    ifindex: u32,
    ifname: String,
    #[serde(default)]
    link_type: String,
    /// Hardware address.
    #[serde(default)]
    address: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Held>,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Held {
    local: Option<IpAddr>,
    #[serde(default)]
    prefixlen: u8,
    #[serde(default)]
    tentative: bool,
    #[serde(default)]
    dadfailed: bool,
}

/// Whether the address is on its link.
pub async fn held(address: &Address) -> Result<bool> {
    let links = list().await?;
    let link = links.iter().find(|link| link.ifname == address.link);
    Ok(link.is_some_and(|link| on(link, address.ip).is_some()))
}

/// Puts the address on its link and announces it.
pub async fn up(address: &Address) -> Result<()> {
    put(address)
        .await
        .with_context(|| format!("bring up address {address}"))
}

/// Takes the address away, from its link or any other.
pub async fn down(address: &Address) -> Result<()> {
    take(address)
        .await
        .with_context(|| format!("take down address {address}"))
}

async fn put(address: &Address) -> Result<()> {
    let links = list().await?;
    let link = named(&links, address)?;
    let elsewhere =
        |other: &&Listed| other.ifname != link.ifname && on(other, address.ip).is_some();
    if let Some(other) = links.iter().find(elsewhere) {
        let what = format!("use it: this machine has it on link {}", other.ifname);
        let hint = "name that link in `addresses`, or take it away there";
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    let failed_before = on(link, address.ip).is_some_and(|held| held.dadfailed);
    if failed_before {
        remove(&link.ifname, address.ip, on(link, address.ip)).await?;
    }
    if failed_before || on(link, address.ip).is_none() {
        ip(&["addr", "add", &address.network(), "dev", &address.link]).await?;
    }
    let link = settled(address).await?;
    reaches(&link)?;
    if link.link_type != "ether" || link.flags.iter().any(|flag| flag == "NOARP") {
        // Nobody there to be told: a tunnel, a dummy link.
        return Ok(());
    }
    let told = Link {
        index: link.ifindex,
        hardware: hardware(&link.address).with_context(|| {
            format!(
                "read the hardware address {:?} of {}",
                link.address, link.ifname
            )
        })?,
    };
    for round in 0..ANNOUNCEMENTS {
        if round > 0 {
            tokio::time::sleep(ANNOUNCE_EVERY).await;
        }
        announce::announce(address.ip, told).context("announce it to the neighbours")?;
    }
    Ok(())
}

/// Refuses a link on which nobody hears. The address stays on it: it works as soon as the link does.
fn reaches(link: &Listed) -> Result<()> {
    let flag = |name: &str| link.flags.iter().any(|flag| flag == name);
    let (name, why) = match (flag("UP"), flag("NO-CARRIER")) {
        (true, false) => return Ok(()),
        (true, true) => (&link.ifname, "has no carrier"),
        (false, _) => (&link.ifname, "is down"),
    };
    let what = format!("tell the neighbours: link {name} {why}");
    let hint = format!("ip link show dev {name}; is the cable in, the other side up?");
    Err(Failure::new(Code::Unreachable, what).hint(hint).into())
}

/// Waits until the kernel lets the address be used; the link as it is then.
async fn settled(address: &Address) -> Result<Listed> {
    let end = Instant::now() + DETECTION_MAX;
    loop {
        let links = list().await?;
        let link = named(&links, address)?;
        let held = on(link, address.ip).context("see it there: it vanished again")?;
        if held.dadfailed {
            remove(&link.ifname, address.ip, Some(held)).await?;
            let what = format!("use it: another machine on {} answers for it", link.ifname);
            let hint =
                "find out which one (ip -6 neigh on a third machine), and take it away there";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        if !held.tentative {
            return Ok(link.clone());
        }
        if Instant::now() >= end {
            let seconds = DETECTION_MAX.as_secs();
            let what = format!(
                "see it usable: duplicate address detection on {} did not end within {seconds} s",
                link.ifname
            );
            let hint = format!("has it a carrier? ip link show {}", link.ifname);
            return Err(Failure::new(Code::Failed, what).hint(hint).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn take(address: &Address) -> Result<()> {
    let before = list().await?;
    for link in &before {
        let held = on(link, address.ip);
        if held.is_none() {
            continue;
        }
        remove(&link.ifname, address.ip, held).await?;
        // An IPv4 address may take those of its network along that came after it (promote_secondaries in ip-sysctl).
        let now = list().await?;
        let here = now.iter().find(|now| now.ifindex == link.ifindex);
        let left: BTreeSet<IpAddr> = here
            .iter()
            .flat_map(|link| link.addr_info.iter().filter_map(|held| held.local))
            .collect();
        for lost in &link.addr_info {
            let Some(local) = lost
                .local
                .filter(|ip| *ip != address.ip && !left.contains(ip))
            else {
                continue;
            };
            let network = format!("{local}/{}", lost.prefixlen);
            ip(&["addr", "replace", &network, "dev", &link.ifname])
                .await
                .with_context(|| format!("put {network} back, which went with it"))?;
        }
    }
    let after = list().await?;
    if let Some(link) = after.iter().find(|link| on(link, address.ip).is_some()) {
        let what = format!("see it gone: something put it back on {}", link.ifname);
        let hint = "take it out of the network configuration of this machine: standin brings it up";
        return Err(Failure::new(Code::Failed, what).hint(hint).into());
    }
    Ok(())
}

async fn remove(link: &str, address: IpAddr, held: Option<&Held>) -> Result<()> {
    let prefix = held.map_or(0, |held| held.prefixlen);
    let network = format!("{address}/{prefix}");
    ip(&["addr", "del", &network, "dev", link]).await?;
    Ok(())
}

fn on(link: &Listed, ip: IpAddr) -> Option<&Held> {
    link.addr_info.iter().find(|held| held.local == Some(ip))
}

fn named<'a>(links: &'a [Listed], address: &Address) -> Result<&'a Listed> {
    let found = links.iter().find(|link| link.ifname == address.link);
    found.ok_or_else(|| {
        let names: Vec<&str> = links.iter().map(|link| link.ifname.as_str()).collect();
        let what = format!("find network link {}", address.link);
        let hint = format!("this machine has {}: mend `addresses`", names.join(", "));
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}

/// `02:00:00:00:00:07`
fn hardware(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// What is wrong with the addresses' links, for `check`; none where all is well.
pub async fn missing(address: &Address) -> Result<Option<String>> {
    let links = list().await?;
    Ok(named(&links, address).err().map(|error| {
        let hint = Failure::of(&error).and_then(|failure| failure.hint.clone());
        format!("cannot {error}: {}", hint.unwrap_or_default())
    }))
}

async fn list() -> Result<Vec<Listed>> {
    let output = ip(&["-j", "addr", "show"]).await?;
    parse(&output.stdout)
}

fn parse(json: &[u8]) -> Result<Vec<Listed>> {
    let links: Vec<serde_json::Value> =
        serde_json::from_slice(json).context("read what ip -j addr says")?;
    // Old versions write an empty object for what they filter out.
    let known = links
        .into_iter()
        .filter(|link| link.get("ifname").is_some());
    known
        .map(|link| serde_json::from_value(link).context("read what ip -j addr says of a link"))
        .collect()
}

async fn ip(arguments: &[&str]) -> Result<Output> {
    let program = find("ip").ok_or_else(|| {
        Failure::new(Code::Failed, "find the program ip")
            .hint("install iproute2 (Debian: apt install iproute2)")
    })?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command.kill_on_drop(true);
    let words = arguments.join(" ");
    let output = match tokio::time::timeout(ANSWER_MAX, command.output()).await {
        Ok(output) => output.with_context(|| format!("run ip {words}"))?,
        Err(_) => {
            return Err(anyhow!(
                "see ip {words} done within {} s",
                ANSWER_MAX.as_secs()
            ));
        }
    };
    if !output.status.success() {
        bail!("run ip {words}: {}", harmless(&output.stderr));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_says() {
        let json = br#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK"],"link_type":"loopback","address":"00:00:00:00:00:00",
            "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},{},
            {"ifindex":7,"ifname":"eth0","link_type":"ether","address":"02:00:00:00:00:07","addr_info":[
            {"family":"inet6","local":"2001:db8::10","prefixlen":64,"tentative":true,"dadfailed":true},{}]}]"#;
        let links = parse(json).unwrap();
        assert_eq!(links.len(), 2);
        let held = on(&links[1], "2001:db8::10".parse().unwrap()).unwrap();
        assert!(held.tentative && held.dadfailed);
        assert_eq!(on(&links[1], "127.0.0.1".parse().unwrap()), None);
        assert_eq!(hardware(&links[1].address), Some([2, 0, 0, 0, 0, 7]));
        assert!(parse(b"{}").is_err());
    }

    #[test]
    fn hardware_addresses() {
        for wrong in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:07:08",
            "02:00:00:00:00:x",
        ] {
            assert_eq!(hardware(wrong), None, "{wrong}");
        }
    }
}
