//! Network namespaces for tests: two of them with a veth pair between, and threads inside.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::fixture;
use crate::{has, skipped, wait};

/// Two namespaces, `here` with the link `a` and `there` with the link `b`. They end with their keepers.
pub struct Pair {
    here: Child,
    there: Child,
}

impl Pair {
    /// None, and said so, where this machine cannot.
    pub fn new(test: &str) -> Option<Pair> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let why = if !rustix::process::geteuid().is_root() {
            "needs root"
        } else if !has("ip") {
            "no iproute2"
        } else {
            ""
        };
        if !why.is_empty() {
            skipped(test, why);
            return None;
        }
        let pair = Pair {
            here: keeper(),
            there: keeper(),
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let b = pair.there.id();
        // Born in the first namespace, so that no name is ever seen on the machine itself.
        let peer = format!("p{number}");
        pair.inside(true, || {
            ip(&format!("link add name a type veth peer name {peer}"));
            ip(&format!("link set dev {peer} netns {b}"));
            ip("link set dev a up");
            ip("link set dev lo up");
        });
        pair.inside(false, || {
            ip(&format!("link set dev {peer} name b"));
            ip("link set dev b up");
            ip("link set dev lo up");
            wait("a carrier", || {
                ip("-o link show dev b").contains("LOWER_UP").then_some(())
            });
        });
        Some(pair)
    }

    /// Runs work on a thread in one of the namespaces; children it starts are in there too.
    pub fn inside<T: Send>(&self, here: bool, work: impl FnOnce() -> T + Send) -> T {
        let pid = if here {
            self.here.id()
        } else {
            self.there.id()
        };
        let namespace = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for keeper in [&mut self.here, &mut self.there] {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}

/// A process that keeps a namespace alive.
fn keeper() -> Child {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "echo in; exec sleep 100000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "in\n");
    child
}

/// Runs ip(8) with these words; what it says.
pub fn ip(words: &str) -> String {
    String::from_utf8(fixture::run("ip", words.split(' '))).unwrap()
}

mod addresses {
    use std::io::{ErrorKind, Read};
    use std::net::IpAddr;
    use std::time::Duration;

    use socket2::{Domain, Protocol, Socket, Type};
    use standin::host::address::{down, held, up};
    use standin::logic::play::Address;

    use super::{Pair, ip};
    use crate::{block, wait};

    /// ETH_P_ALL (linux/if_ether.h), in network order as packet(7) wants it.
    fn all_packets() -> Protocol {
        Protocol::from(i32::from(3_u16.to_be()))
    }

    /// Every frame that comes in on any link of this thread's namespace from now on, until `enough` says so.
    fn capture(pair: &Pair, work: impl FnOnce(), mut enough: impl FnMut(&[u8]) -> bool) {
        let mut socket = pair.inside(false, || {
            Socket::new(Domain::PACKET, Type::RAW, Some(all_packets())).unwrap()
        });
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        work();
        let mut frame = [0; 2048];
        loop {
            let length = match socket.read(&mut frame) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the frame that was waited for"),
            };
            if enough(&frame[..length]) {
                return;
            }
        }
    }

    #[test]
    fn ipv4_goes_up_is_announced_and_comes_down() {
        let Some(pair) = Pair::new("ipv4_goes_up_is_announced_and_comes_down") else {
            return;
        };
        let address = Address::parse("192.0.2.10/24 a").unwrap();
        let IpAddr::V4(wanted) = address.ip else {
            panic!()
        };
        let bring = || pair.inside(true, || block(up(&address))).unwrap();
        let (mut requests, mut replies) = (0, 0);
        capture(&pair, bring, |frame| {
            // Ethernet, ARP, and sender and target the same.
            let is_arp = frame.len() >= 42 && frame[12..14] == [8, 6];
            if is_arp && frame[28..32] == wanted.octets() && frame[38..42] == wanted.octets() {
                assert_eq!(frame[..6], [0xff; 6]);
                assert_eq!(frame[6..12], frame[22..28], "who sends and what it says");
                match frame[21] {
                    1 => requests += 1,
                    2 => replies += 1,
                    other => panic!("{other}"),
                }
            }
            requests == 3 && replies == 3
        });
        pair.inside(true, || {
            block(async {
                assert!(held(&address).await.unwrap());
                up(&address).await.unwrap();
                down(&address).await.unwrap();
                assert!(!held(&address).await.unwrap());
                down(&address).await.unwrap();
            });
        });
    }

    #[test]
    fn ipv6_goes_up_is_announced_and_comes_down() {
        let Some(pair) = Pair::new("ipv6_goes_up_is_announced_and_comes_down") else {
            return;
        };
        let address = Address::parse("2001:db8::10/64 a").unwrap();
        let IpAddr::V6(wanted) = address.ip else {
            panic!()
        };
        let bring = || pair.inside(true, || block(up(&address))).unwrap();
        let mut told = 0;
        capture(&pair, bring, |frame| {
            // Ethernet, IPv6, ICMPv6 neighbour advertisement, ours.
            let is_ours = frame.len() >= 86
                && frame[12..14] == [0x86, 0xdd]
                && frame[20] == 58
                && frame[54] == 136
                && frame[62..78] == wanted.octets();
            if is_ours {
                assert_eq!(frame[21], 255, "hop limit");
                assert_eq!(frame[22..38], wanted.octets(), "from the address itself");
                assert_eq!(frame[58] & 0x20, 0x20, "override");
                assert_eq!(frame[80..86], frame[6..12], "its hardware address");
                assert_ne!(frame[56..58], [0, 0], "a checksum");
                told += 1;
            }
            told == 3
        });
        pair.inside(true, || {
            block(async {
                assert!(held(&address).await.unwrap());
                down(&address).await.unwrap();
                assert!(!held(&address).await.unwrap());
            });
        });
    }

    #[test]
    fn an_address_that_another_holds_is_given_back() {
        let Some(pair) = Pair::new("an_address_that_another_holds_is_given_back") else {
            return;
        };
        let there = Address::parse("2001:db8::10/64 b").unwrap();
        pair.inside(false, || block(up(&there))).unwrap();
        let here = Address::parse("2001:db8::10/64 a").unwrap();
        let error = pair.inside(true, || block(up(&here))).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("another machine on a answers for it"),
            "{error}"
        );
        assert!(!pair.inside(true, || block(held(&here))).unwrap());
        // Once the other has let go, it works.
        pair.inside(false, || block(down(&there))).unwrap();
        pair.inside(true, || block(up(&here))).unwrap();
    }

    #[test]
    fn other_addresses_stay() {
        let Some(pair) = Pair::new("other_addresses_stay") else {
            return;
        };
        let floating = Address::parse("192.0.2.10/24 a").unwrap();
        pair.inside(true, || {
            // The kernel takes the second along with the first of a network.
            block(up(&floating)).unwrap();
            ip("addr add 192.0.2.11/24 dev a");
            block(down(&floating)).unwrap();
            let left = ip("-o addr show dev a");
            assert!(left.contains("192.0.2.11/24"), "{left}");
            assert!(!left.contains("192.0.2.10"), "{left}");
        });
    }

    /// Bringing it up fails, and the error says this.
    #[track_caller]
    fn fails(pair: &Pair, address: &str, says: &str) {
        let address = Address::parse(address).unwrap();
        let error = pair.inside(true, || block(up(&address))).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn links_that_cannot() {
        let Some(pair) = Pair::new("links_that_cannot") else {
            return;
        };
        fails(
            &pair,
            "192.0.2.10/24 eth9",
            "bring up address 192.0.2.10/24 eth9: find network link eth9",
        );
        pair.inside(true, || ip("addr add 192.0.2.10/24 dev lo"));
        fails(&pair, "192.0.2.10/24 a", "this machine has it on link lo");
        pair.inside(false, || ip("link set dev b down"));
        let dead = || {
            ip("-o link show dev a")
                .contains("NO-CARRIER")
                .then_some(())
        };
        pair.inside(true, || wait("no carrier", dead));
        fails(&pair, "192.0.2.20/24 a", "link a has no carrier");
        pair.inside(true, || ip("link set dev a down"));
        fails(&pair, "192.0.2.20/24 a", "link a is down");
        // Detection of duplicates waits for a link that is ready.
        fails(&pair, "2001:db8::10/64 a", "did not end within");
    }
}
