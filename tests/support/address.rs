//! Addresses on this machine for listeners that are stopped and started again.
//!
//! Promise: an address is given once while the process lives, and neither another test process nor an outgoing connection gets
//! it in between: its port is below those that the kernel gives to outgoing connections (32768 and up, ip(7)
//! `ip_local_port_range`), and a lock on a file of that name is held. A crash leaves empty files in a directory of /tmp.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::fs::{FlockOperation, flock};

const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A free address that stays this process's own.
pub fn free_address() -> SocketAddr {
    let locks = std::env::temp_dir().join("standin-ports");
    fs::create_dir_all(&locks).unwrap();
    // Every process begins elsewhere, so that few are tried; the locks decide.
    let begin = usize::try_from(std::process::id()).unwrap() * 61 % PORTS.len();
    PORTS
        .cycle()
        .skip(begin)
        .take(PORTS.len())
        .find_map(|port| {
            let lock = File::create(locks.join(port.to_string())).ok()?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            TcpListener::bind(address).ok()?;
            // Held until the process ends.
            std::mem::forget(lock);
            Some(address)
        })
        .expect("no free port from 20000 to 31999")
}
