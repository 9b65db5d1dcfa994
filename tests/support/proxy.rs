//! A TCP relay on loopback between two nodes: the link that tests cut, silence and mend.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the relay does with traffic.
#[derive(Default)]
struct Rules {
    /// New connections are closed at once, old ones were.
    cut: AtomicBool,
    /// Bytes are read and thrown away: both ends see silence.
    silent: AtomicBool,
    bytes: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

pub struct Proxy {
    pub address: SocketAddr,
    rules: Arc<Rules>,
}

impl Proxy {
    /// Relays to `target` from a free port of its own.
    pub fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Arc::new(Rules::default());
        let shared = rules.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                relay(stream, onward, &shared);
            }
        });
        Proxy { address, rules }
    }

    /// Ends every connection with a reset and refuses new ones.
    pub fn cut(&self) {
        self.rules.cut.store(true, Ordering::SeqCst);
        for stream in self.rules.streams.lock().unwrap().drain(..) {
            // Already closed is what was wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Swallows traffic both ways without closing anything.
    pub fn silence(&self) {
        self.rules.silent.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.rules.cut.store(false, Ordering::SeqCst);
        self.rules.silent.store(false, Ordering::SeqCst);
    }

    /// Bytes relayed so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.rules.bytes.load(Ordering::SeqCst)
    }
}

fn relay(one: TcpStream, other: TcpStream, rules: &Arc<Rules>) {
    let mut streams = rules.streams.lock().unwrap();
    for (from, to) in [(&one, &other), (&other, &one)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let rules = rules.clone();
        std::thread::spawn(move || pump(from, to, &rules));
    }
    streams.push(one);
    streams.push(other);
}

fn pump(mut from: TcpStream, mut to: TcpStream, rules: &Rules) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(got) = from.read(&mut buffer) {
        if got == 0 {
            break;
        }
        if rules.silent.load(Ordering::SeqCst) {
            continue;
        }
        rules.bytes.fetch_add(got as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
