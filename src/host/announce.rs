//! Tells the neighbours on a network link where an address lives now: gratuitous ARP and unsolicited neighbour
//! advertisements.
//!
//! Promise: what is sent says that the address is at this link's own hardware address, nothing else. Nothing is kept, so a
//! crash leaves nothing behind; a neighbour that missed it finds out when its own entry grows old.
//!
//! `unsafe` stands here for one structure of the kernel, the address of a packet socket, which neither socket2 nor rustix
//! makes; both crates are used for the rest.
//!
//! It deliberately does not know who holds an address.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// ETH_P_ARP (linux/if_ether.h).
const ETHERTYPE_ARP: u16 = 0x0806;

/// ARP operations (RFC 826).
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// To everybody on the link.
const BROADCAST: [u8; 6] = [0xff; 6];

/// All nodes on the link (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The network link on which something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// Ethernet.
    pub hardware: [u8; 6],
}

/// Says once that `ip` is here.
pub fn announce(ip: IpAddr, link: Link) -> io::Result<()> {
    match ip {
        IpAddr::V4(ip) => {
            // Some neighbours believe the one, some the other (RFC 5227, 3).
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
            let to = packet_address(link)?;
            for operation in [REQUEST, REPLY] {
                socket.send_to(&arp(operation, ip, link.hardware), &to)?;
            }
            Ok(())
        }
        IpAddr::V6(ip) => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            // Receivers drop what could have come through a router (RFC 4861, 7.1.2).
            socket.set_multicast_hops_v6(255)?;
            socket.set_multicast_if_v6(link.index)?;
            socket.set_multicast_loop_v6(false)?;
            let own = |ip| SockAddr::from(SocketAddrV6::new(ip, 0, 0, link.index));
            socket.bind(&own(ip))?;
            socket.send_to(&advertisement(ip, link.hardware), &own(ALL_NODES))?;
            Ok(())
        }
    }
}

/// RFC 826 for IPv4 on Ethernet. Sender and target are the same address: gratuitous.
fn arp(operation: u16, ip: Ipv4Addr, hardware: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(hardware);
    packet.extend(ip.octets());
    // Whose a request asks for is not known; a reply goes to all.
    packet.extend(if operation == REQUEST {
        [0; 6]
    } else {
        BROADCAST
    });
    packet.extend(ip.octets());
    packet
}

/// RFC 4861, 4.4: not a router's, not asked for, overrides what the neighbours remember. The kernel fills in the checksum.
fn advertisement(ip: Ipv6Addr, hardware: [u8; 6]) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    let mut packet = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    packet.extend(ip.octets());
    // Option 2: the target's link-layer address, in units of 8 bytes.
    packet.extend([2, 1]);
    packet.extend(hardware);
    packet
}

/// struct sockaddr_ll (packet(7)): broadcast on a link, ARP.
fn packet_address(link: Link) -> io::Result<SockAddr> {
    let index = i32::try_from(link.index).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is zeroed and as large as any address; sockaddr_ll holds plain numbers, for which zero is a value.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ETHERTYPE_ARP.to_be();
    address.sll_ifindex = index;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&BROADCAST);
    let bytes = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: family and length are those of the sockaddr_ll that was filled in above.
    Ok(unsafe { SockAddr::new(storage, bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn packets_as_the_standards_have_them() {
        let ip = Ipv4Addr::new(192, 0, 2, 10);
        let request = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2,
            10,
        ];
        assert_eq!(arp(REQUEST, ip, HARDWARE), request);
        let reply = arp(REPLY, ip, HARDWARE);
        assert_eq!((reply[7], &reply[18..24]), (2, &BROADCAST[..]));
        let told = advertisement("2001:db8::10".parse().unwrap(), HARDWARE);
        assert_eq!(told.len(), 32);
        assert_eq!(&told[..8], [136, 0, 0, 0, 0x20, 0, 0, 0]);
        assert_eq!(&told[24..], [2, 1, 2, 0, 0, 0, 0, 7]);
    }
}
