//! What moves with a role besides its data: services, floating addresses, ports, and the hooks around them.
//!
//! Promise: whoever holds one of these values holds words that are safe as arguments of a program: a unit's name, a link's
//! name and an address were checked here. Everything that is parsed is written back by `Display` to the same value.
//!
//! It deliberately does not know whether any of it exists on this machine: `host` looks, `standin check` tells.

use std::collections::BTreeMap;
use std::fmt;
// The type alone: nothing of the network is in it.
use core::net::IpAddr;
use std::time::Duration;

/// Default of `timeout` of a service that is not a unit.
pub const SERVICE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Default of `timeout` of a hook.
pub const HOOK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Longest name of a network link, in bytes (kernel: IFNAMSIZ is 16 with the final NUL).
const LINK_BYTES_MAX: usize = 15;

/// Longest name of a systemd unit, in bytes (systemd.unit(5): 255 characters with the suffix).
const UNIT_BYTES_MAX: usize = 255;

/// Units that can be started and stopped for a role (systemd.unit(5)).
const UNIT_KINDS: [&str; 6] = ["service", "socket", "target", "timer", "path", "mount"];

/// Everything of a role that is not data. The default moves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Play {
    /// Started in this order, stopped in the reverse one.
    pub services: Vec<Service>,
    /// Held by the active node only.
    pub addresses: Vec<Address>,
    /// Closed before anything else when the role leaves this node.
    pub ports: Vec<Port>,
    pub hooks: BTreeMap<Moment, Hook>,
}

impl Play {
    /// Whether nothing moves but data.
    pub fn is_empty(&self) -> bool {
        *self == Play::default()
    }
}

/// Something that runs where the role is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    Unit(Unit),
    Command(CommandService),
}

impl Service {
    /// As `services` names it.
    pub fn name(&self) -> &str {
        match self {
            Service::Unit(unit) => unit.as_str(),
            Service::Command(service) => &service.name,
        }
    }
}

/// The name of a systemd unit, with its suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit(String);

impl Unit {
    pub fn parse(word: &str) -> Result<Unit, String> {
        let kind = word.rsplit_once('.').map_or("", |(_, kind)| kind);
        if !UNIT_KINDS.contains(&kind) {
            let kinds = UNIT_KINDS.join(", .");
            return Err(format!("not a systemd unit: its name ends in .{kinds}"));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
        let whole = word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !whole || !word.chars().all(good) || word.len() > UNIT_BYTES_MAX {
            return Err("not the name of a systemd unit, such as \"nginx.service\"".to_owned());
        }
        if word.contains("@.") {
            return Err(
                "a template, not a unit: name an instance, such as \"app@web.service\"".into(),
            );
        }
        Ok(Unit(word.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A service that systemd does not know: argument vectors, each with at least one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandService {
    pub name: String,
    /// Ends once the service is being started; what it leaves running is the service.
    pub start: Vec<String>,
    pub stop: Vec<String>,
    /// Exit status 0: it runs.
    pub health: Vec<String>,
    /// For `start` or `stop` and the health that has to follow, together.
    pub timeout: Duration,
}

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    BeforeStart,
    AfterStart,
    BeforeStop,
    AfterStop,
}

impl Moment {
    pub const ALL: [Moment; 4] = [
        Moment::BeforeStart,
        Moment::AfterStart,
        Moment::BeforeStop,
        Moment::AfterStop,
    ];

    /// The key in the configuration, and STANDIN_MOMENT of the hook.
    pub fn word(self) -> &'static str {
        match self {
            Moment::BeforeStart => "before-start",
            Moment::AfterStart => "after-start",
            Moment::BeforeStop => "before-stop",
            Moment::AfterStop => "after-stop",
        }
    }
}

/// A program that is called at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Argument vector, at least one word.
    pub run: Vec<String>,
    pub timeout: Duration,
}

/// A floating address: `192.0.2.10/24 eth0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
    /// The network link, such as `eth0`.
    pub link: String,
}

impl Address {
    pub fn parse(text: &str) -> Result<Address, String> {
        const WRONG: &str =
            "not an address with its network and link, such as \"192.0.2.10/24 eth0\"";
        let mut words = text.split_whitespace();
        let (Some(network), Some(link), None) = (words.next(), words.next(), words.next()) else {
            return Err(WRONG.to_owned());
        };
        let (ip, prefix) = network.split_once('/').ok_or(WRONG)?;
        let ip: IpAddr = ip.parse().map_err(|_| WRONG)?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse::<u8>().ok();
        let prefix = prefix.filter(|prefix| digits && (1..=bits).contains(prefix));
        let prefix = prefix.ok_or_else(|| format!("the network after / is 1 to {bits} bits"))?;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err("no machine can be reached by this address from outside".to_owned());
        }
        let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if link.len() > LINK_BYTES_MAX || link.starts_with(['-', '.']) || !link.chars().all(good) {
            return Err(format!(
                "\"{link}\" is not the name of a network link, such as eth0"
            ));
        }
        Ok(Address {
            ip,
            prefix,
            link: link.to_owned(),
        })
    }

    /// `192.0.2.10/24`, as ip(8) takes it.
    pub fn network(&self) -> String {
        format!("{}/{}", self.ip, self.prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.network(), self.link)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A port on which services of a role are reached: `tcp/443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub protocol: Protocol,
    pub number: u16,
}

impl Port {
    pub fn parse(text: &str) -> Result<Port, &'static str> {
        const WRONG: &str = "not a port, such as \"tcp/443\" or \"udp/53\"";
        let (protocol, number) = text.split_once('/').ok_or(WRONG)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(WRONG),
        };
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse::<u16>().ok();
        let number = number.filter(|number| digits && *number > 0).ok_or(WRONG)?;
        Ok(Port { protocol, number })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.word(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, good: bool) {
        let parsed = Address::parse(text);
        assert_eq!(parsed.is_ok(), good, "{text}: {parsed:?}");
        if let Ok(parsed) = parsed {
            assert_eq!(Address::parse(&parsed.to_string()).as_ref(), Ok(&parsed));
        }
    }

    #[test]
    fn addresses() {
        for text in [
            "192.0.2.10/24 eth0",
            "192.0.2.10/32  br-lan.7",
            "2001:db8::10/64 eth0",
            "fe80::1/64 enp3s0f1np1",
        ] {
            address(text, true);
        }
        for text in [
            "",
            "192.0.2.10",
            "192.0.2.10/24",
            "192.0.2.10 eth0",
            "192.0.2.10/33 eth0",
            "192.0.2.10/0 eth0",
            "192.0.2.10/+8 eth0",
            "2001:db8::10/129 eth0",
            "192.0.2.10/24 eth0 eth1",
            "192.0.2.10/24 -eth0",
            "192.0.2.10/24 a/b",
            "192.0.2.10/24 sixteen-bytes-xx",
            "0.0.0.0/8 eth0",
            "127.0.0.1/8 lo",
            "224.0.0.1/8 eth0",
            "::/64 eth0",
        ] {
            address(text, false);
        }
    }

    #[test]
    fn ports() {
        let check = |text: &str, good: bool| {
            let parsed = Port::parse(text);
            assert_eq!(parsed.is_ok(), good, "{text}: {parsed:?}");
            if let Ok(parsed) = parsed {
                assert_eq!(parsed.to_string(), text);
            }
        };
        check("tcp/80", true);
        check("udp/65535", true);
        for text in [
            "80",
            "tcp/0",
            "tcp/65536",
            "tcp/+1",
            "TCP/80",
            "sctp/9",
            "tcp/",
        ] {
            check(text, false);
        }
    }

    #[test]
    fn units() {
        let check = |word: &str, good: bool| assert_eq!(Unit::parse(word).is_ok(), good, "{word}");
        check("nginx.service", true);
        check("app@web-1.service", true);
        check("dev-disk\\x2d1.mount", true);
        check("web.target", true);
        for word in [
            "nginx",
            "nginx.slice",
            "app@.service",
            "-x.service",
            ".service",
            "a b.service",
            "a/b.service",
        ] {
            check(word, false);
        }
    }
}
