//! Ports that are closed under a running connection, in network namespaces.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use standin::host::ports::{close, closed, open};
use standin::logic::name::RoleName;
use standin::logic::play::Port;

use crate::network::{Pair, ip};
use crate::{block, has, skipped};

/// As long as it takes to see that nothing comes: TCP would have sent again several times.
const SILENCE: Duration = Duration::from_millis(1500);

struct Line {
    server: TcpStream,
    client: TcpStream,
}

impl Line {
    /// A byte from one end to the other; whether it came.
    fn carries(&mut self, to_server: bool, patience: Duration) -> bool {
        let (from, to) = match to_server {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        from.write_all(b"x").unwrap();
        to.set_read_timeout(Some(patience)).unwrap();
        loop {
            match to.read(&mut [0]) {
                Ok(count) => return count == 1,
                // A child of another test ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return false;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const LONG: Duration = Duration::from_secs(20);

fn stage(test: &str) -> Option<Pair> {
    if !has("nft") {
        skipped(test, "no nftables");
        return None;
    }
    let pair = Pair::new(test)?;
    pair.inside(true, || ip("addr add 192.0.2.1/24 dev a"));
    pair.inside(false, || ip("addr add 192.0.2.2/24 dev b"));
    let role = RoleName::parse("probe").unwrap();
    let port = [Port::parse("tcp/1").unwrap()];
    if let Err(error) = pair.inside(true, || block(close(&role, &port))) {
        skipped(test, &format!("this kernel has no nftables: {error:#}"));
        return None;
    }
    Some(pair)
}

fn connect(pair: &Pair, port: u16) -> Line {
    let listener = pair.inside(true, || TcpListener::bind(("192.0.2.1", port)).unwrap());
    let client = pair.inside(false, || TcpStream::connect(("192.0.2.1", port)).unwrap());
    let (server, _) = listener.accept().unwrap();
    for end in [&server, &client] {
        end.set_nodelay(true).unwrap();
    }
    Line { server, client }
}

#[test]
fn a_connection_stops_and_goes_on() {
    let Some(pair) = stage("a_connection_stops_and_goes_on") else {
        return;
    };
    let role = RoleName::parse("web-1").unwrap();
    let ports = [
        Port::parse("tcp/8080").unwrap(),
        Port::parse("udp/53").unwrap(),
    ];
    let mut line = connect(&pair, 8080);
    let mut other = connect(&pair, 8081);
    assert!(line.carries(true, LONG) && line.carries(false, LONG));
    let here = |work: &(dyn Fn() + Sync)| pair.inside(true, work);
    here(&|| assert!(!block(closed(&role)).unwrap()));
    let began = Instant::now();
    here(&|| block(close(&role, &ports)).unwrap());
    println!("closing took {:?}", began.elapsed());
    here(&|| assert!(block(closed(&role)).unwrap()));
    assert!(!line.carries(true, SILENCE), "to the server");
    assert!(!line.carries(false, SILENCE), "from the server");
    // Nobody new comes in, from here or there; other ports and roles do not notice.
    let address = "192.0.2.1:8080".parse().unwrap();
    for inside in [true, false] {
        let error = pair
            .inside(inside, || TcpStream::connect_timeout(&address, SILENCE))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    assert!(other.carries(true, LONG) && other.carries(false, LONG));
    let near = RoleName::parse("web_2d1").unwrap();
    here(&|| assert!(!block(closed(&near)).unwrap()));
    here(&|| block(close(&role, &ports)).unwrap());
    // What was sent meanwhile arrives.
    here(&|| block(open(&role)).unwrap());
    here(&|| assert!(!block(closed(&role)).unwrap()));
    let mut byte = [0];
    for end in [&mut line.server, &mut line.client] {
        end.set_read_timeout(Some(LONG)).unwrap();
        end.read_exact(&mut byte).unwrap();
    }
    assert!(line.carries(true, LONG) && line.carries(false, LONG));
    here(&|| block(open(&role)).unwrap());
}
