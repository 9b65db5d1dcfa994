//! Ports of a role that are closed while it leaves this node: one nftables table for each role.
//!
//! Promise: after `close` no packet to or from the ports passes, established connections and this very machine included; it
//! happens in one step, and again changes nothing. After `open` nothing is left of it. A crash between leaves the table, which
//! `open` takes away; a reboot takes it away too, as does `nft flush ruleset` (so does restarting nftables.service): the
//! services behind are stopped by then, the closed port is the fast part of leaving, not the lasting one.
//!
//! Packets are dropped, not refused: a client tries again, and finds the next node.
//!
//! It deliberately does not know why ports are closed.

use std::fmt::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::AsyncWriteExt;

use super::command::{find, harmless};
use crate::error::{Code, Failure};
use crate::logic::name::RoleName;
use crate::logic::play::{Port, Protocol};

/// For one call of nft(8).
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whether the program is there.
pub fn can_close() -> bool {
    find("nft").is_some()
}

/// What to do where it is not.
pub const INSTALL: &str = "install nftables (Debian: apt install nftables)";

/// Closes the ports of a role, in place of those that were closed before.
pub async fn close(role: &RoleName, ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    rules(&closed_table(role, ports))
        .await
        .with_context(|| format!("close the ports of {role}"))
}

/// Opens whatever `close` closed. Where nft is not installed, nothing is closed.
pub async fn open(role: &RoleName) -> Result<()> {
    if !can_close() {
        return Ok(());
    }
    let table = table(role);
    // Made first, so that taking it away cannot fail for its absence.
    rules(&format!(
        "table inet {table} {{ }}\ndelete table inet {table}\n"
    ))
    .await
    .with_context(|| format!("open the ports of {role}"))
}

/// Whether ports of the role are closed.
pub async fn closed(role: &RoleName) -> Result<bool> {
    if !can_close() {
        return Ok(false);
    }
    let output = nft(&["-j", "list", "tables"], "").await?;
    if !output.status.success() {
        bail!("list the tables of nftables: {}", harmless(&output.stderr));
    }
    let listed: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read the tables of nftables")?;
    let entries = listed["nftables"].as_array().cloned().unwrap_or_default();
    let name = table(role);
    Ok(entries.iter().any(|entry| {
        let table = &entry["table"];
        table["family"] == "inet" && table["name"] == name.as_str()
    }))
}

/// The table's name: letters and digits of the role's as they are, others as their code, so that no two roles share one.
fn table(role: &RoleName) -> String {
    let mut name = "standin_".to_owned();
    for byte in role.as_str().bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() => name.push(char::from(b)),
            // Writing to a text cannot fail.
            b => drop(write!(name, "_{b:02x}")),
        }
    }
    name
}

/// One transaction for nft(8). Hooks at raw priority see a packet before connection tracking does (nft(8), table 7): what is
/// established is dropped like the rest.
fn closed_table(role: &RoleName, ports: &[Port]) -> String {
    let table = table(role);
    let numbers = |protocol: Protocol| {
        let mut numbers: Vec<u16> = ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .map(|port| port.number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
        numbers.join(", ")
    };
    let (mut inward, mut outward) = (String::new(), String::new());
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let (word, numbers) = (protocol.word(), numbers(protocol));
        if !numbers.is_empty() {
            inward += &format!("    {word} dport {{ {numbers} }} drop\n");
            outward += &format!("    {word} sport {{ {numbers} }} drop\n");
        }
    }
    format!(
        "table inet {table} {{ }}\ndelete table inet {table}\ntable inet {table} {{\n  \
         chain inward {{\n    type filter hook prerouting priority raw; policy accept;\n{inward}  }}\n  \
         chain outward {{\n    type filter hook output priority raw; policy accept;\n{outward}  }}\n}}\n"
    )
}

async fn rules(text: &str) -> Result<()> {
    let output = nft(&["-f", "-"], text).await?;
    if !output.status.success() {
        let said = harmless(&output.stderr);
        let hint =
            "does this kernel have nftables (modprobe nf_tables), and has standin CAP_NET_ADMIN?";
        return Err(
            Failure::new(Code::Failed, format!("have nft load rules: {said}"))
                .hint(hint)
                .into(),
        );
    }
    Ok(())
}

async fn nft(arguments: &[&str], input: &str) -> Result<Output> {
    let program = find("nft")
        .ok_or_else(|| Failure::new(Code::Failed, "find the program nft").hint(INSTALL))?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let mut child = command.spawn().context("run nft")?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(ANSWER_MAX, work).await {
        Ok(output) => output.context("run nft"),
        Err(_) => Err(anyhow!("see nft done within {} s", ANSWER_MAX.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn role(name: &str) -> RoleName {
        RoleName::parse(name).unwrap()
    }

    #[test]
    fn every_role_has_a_table_of_its_own() {
        let check = |name: &str, expected: &str| assert_eq!(table(&role(name)), expected);
        check("web", "standin_web");
        check("web-2", "standin_web_2d2");
        check("web.2", "standin_web_2e2");
        check("web_2d2", "standin_web_5f2d2");
    }

    #[test]
    fn rules_of_a_closed_role() {
        let ports =
            ["tcp/443", "udp/443", "tcp/80", "tcp/80"].map(|text| Port::parse(text).unwrap());
        expect![[r#"
            table inet standin_web { }
            delete table inet standin_web
            table inet standin_web {
              chain inward {
                type filter hook prerouting priority raw; policy accept;
                tcp dport { 80, 443 } drop
                udp dport { 443 } drop
              }
              chain outward {
                type filter hook output priority raw; policy accept;
                tcp sport { 80, 443 } drop
                udp sport { 443 } drop
              }
            }
        "#]]
        .assert_eq(&closed_table(&role("web"), &ports));
    }
}
