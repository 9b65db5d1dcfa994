//! A TCP relay on loopback between two nodes: the link that tests cut, close, silence and mend, at once or at an exact byte.
//!
//! Each direction of a connection has a thread. What a thread has swallowed is lost: that direction of that connection stays
//! silent for ever, as when the other end has vanished; a mended relay lets new connections through.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A thread looks this often whether it shall still be there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A direction of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever dialled.
    ToTarget = 0,
    ToDialler = 1,
}

/// How connections end, or seem to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends get a reset.
    Reset,
    /// Both ends get an orderly end.
    Close,
    /// Nothing arrives any more, either way.
    Silence,
    /// Nothing arrives any more this way; the other one is well.
    Half(Way),
}

type Action = Box<dyn FnOnce() + Send>;

/// What is done when so many more bytes have gone one way.
struct Armed {
    way: Way,
    left: u64,
    action: Action,
}

/// What the relay does with traffic.
#[derive(Default)]
struct Rules {
    /// New connections are closed at once.
    refusing: AtomicBool,
    /// New connections and old ones are silent.
    silent: AtomicBool,
    carried: [AtomicU64; 2],
    armed: Mutex<Option<Armed>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// What the newest connection carried, each way.
    newest: Mutex<Arc<[AtomicU64; 2]>>,
}

struct Connection {
    /// The target's end, the dialler's end.
    ends: [TcpStream; 2],
    muted: [AtomicBool; 2],
    dropped: AtomicBool,
    carried: Arc<[AtomicU64; 2]>,
}

/// Clones are the same relay.
#[derive(Clone)]
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
                if shared.refusing.load(SeqCst) {
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
        self.refuse();
        self.end(Cut::Reset);
    }

    /// New connections are closed at once.
    pub fn refuse(&self) {
        self.rules.refusing.store(true, SeqCst);
    }

    /// Swallows traffic both ways without closing anything, on new connections too.
    pub fn silence(&self) {
        self.rules.silent.store(true, SeqCst);
    }

    /// New connections are let through again.
    pub fn mend(&self) {
        self.rules.refusing.store(false, SeqCst);
        self.rules.silent.store(false, SeqCst);
    }

    /// Ends the connections there are; new ones are let through.
    pub fn end(&self, cut: Cut) {
        let mut connections = self.rules.connections.lock().unwrap();
        for connection in connections.iter() {
            connection.end(cut);
        }
        if matches!(cut, Cut::Reset | Cut::Close) {
            connections.clear();
        }
    }

    /// Does something, on the relay's own thread, when exactly so many more bytes have gone that way. Replaces what was armed.
    pub fn after(&self, way: Way, bytes: u64, action: impl FnOnce() + Send + 'static) {
        *self.rules.armed.lock().unwrap() = Some(Armed {
            way,
            left: bytes,
            action: Box::new(action),
        });
    }

    /// Forgets what was armed and not yet done; whether there was anything.
    pub fn disarm(&self) -> bool {
        self.rules.armed.lock().unwrap().take().is_some()
    }

    /// Bytes relayed so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.carried(Way::ToTarget) + self.carried(Way::ToDialler)
    }

    /// Bytes relayed so far, one way.
    pub fn carried(&self, way: Way) -> u64 {
        self.rules.carried[way as usize].load(SeqCst)
    }

    /// Bytes that the newest connection carried.
    pub fn newest_carried(&self, way: Way) -> u64 {
        self.rules.newest.lock().unwrap()[way as usize].load(SeqCst)
    }
}

impl Connection {
    fn end(&self, cut: Cut) {
        match cut {
            Cut::Reset => {
                for end in &self.ends {
                    // Closing then sends a reset; an end that is closed already is what was wanted.
                    let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
                }
                self.dropped.store(true, SeqCst);
            }
            Cut::Close => {
                for end in &self.ends {
                    let _ = end.shutdown(Shutdown::Both);
                }
            }
            Cut::Silence => self.muted.iter().for_each(|way| way.store(true, SeqCst)),
            Cut::Half(way) => self.muted[way as usize].store(true, SeqCst),
        }
    }
}

fn relay(dialler: TcpStream, target: TcpStream, rules: &Arc<Rules>) {
    for end in [&dialler, &target] {
        let _ = end.set_nodelay(true);
        end.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        end.set_write_timeout(Some(LOOK_EVERY)).unwrap();
    }
    let carried = Arc::<[AtomicU64; 2]>::default();
    let connection = Arc::new(Connection {
        ends: [target, dialler],
        muted: Default::default(),
        dropped: AtomicBool::new(false),
        carried: carried.clone(),
    });
    *rules.newest.lock().unwrap() = carried;
    let mut connections = rules.connections.lock().unwrap();
    connections.retain(|old| Arc::strong_count(old) > 1);
    connections.push(connection.clone());
    for way in [Way::ToTarget, Way::ToDialler] {
        let (connection, rules) = (connection.clone(), rules.clone());
        std::thread::spawn(move || pump(&connection, way, &rules));
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Moves bytes one way until an end is reached.
fn pump(connection: &Connection, way: Way, rules: &Rules) {
    let (from, to) = (
        &connection.ends[1 - way as usize],
        &connection.ends[way as usize],
    );
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let got = match { from }.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if is_pause(&error) && !connection.dropped.load(SeqCst) => continue,
            Err(_) => break,
        };
        if !forward(connection, way, rules, &buffer[..got]) {
            break;
        }
    }
    let muted = connection.muted[way as usize].load(SeqCst);
    if !connection.dropped.load(SeqCst) && !muted {
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// False when the connection is over.
fn forward(connection: &Connection, way: Way, rules: &Rules, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let (now, due) = {
            let mut armed = rules.armed.lock().unwrap();
            match armed.as_mut().filter(|armed| armed.way == way) {
                Some(waiting) if waiting.left <= bytes.len() as u64 => {
                    let now = waiting.left as usize;
                    (now, armed.take())
                }
                Some(waiting) => {
                    waiting.left -= bytes.len() as u64;
                    (bytes.len(), None)
                }
                None => (bytes.len(), None),
            }
        };
        let alive = hand_over(connection, way, rules, &bytes[..now]);
        bytes = &bytes[now..];
        if let Some(armed) = due {
            (armed.action)();
        }
        if !alive || connection.dropped.load(SeqCst) {
            return false;
        }
    }
    true
}

fn hand_over(connection: &Connection, way: Way, rules: &Rules, mut bytes: &[u8]) -> bool {
    let (side, muted) = (way as usize, &connection.muted[way as usize]);
    if rules.silent.load(SeqCst) {
        muted.store(true, SeqCst);
    }
    if muted.load(SeqCst) {
        return true;
    }
    while !bytes.is_empty() {
        match { &connection.ends[side] }.write(bytes) {
            Ok(0) => return false,
            Ok(wrote) => {
                bytes = &bytes[wrote..];
                rules.carried[side].fetch_add(wrote as u64, SeqCst);
                connection.carried[side].fetch_add(wrote as u64, SeqCst);
            }
            Err(error) if is_pause(&error) && !connection.dropped.load(SeqCst) => {}
            Err(_) => return false,
        }
    }
    true
}
