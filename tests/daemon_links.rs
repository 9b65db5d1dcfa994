//! Who may speak to a daemon, and over what: links that fall silent or cross, strangers, invitations, any pipe.
//!
//! Two real daemons and a relay between them that can be cut and silenced.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::cluster::{MANUAL, MIB, Pair, fill, noise, same_on_both, wait};
use support::fixture;

#[test]
fn a_silent_link_is_declared_dead_and_dialled_again() {
    if !fixture::ready("a_silent_link_is_declared_dead_and_dialled_again") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    pair.link.silence();
    let down = || pair.alder.status()["peers"][0]["linked"] == false;
    pair.alder.wait_for("the silence is noticed", down);
    let said = pair.alder.run(&["run"]);
    assert_eq!(said.code, 13, "{said:?}");
    pair.link.cut();
    pair.link.mend();
    pair.wait_linked();
    fs::write(pair.alder.live("files").join("x"), "x").unwrap();
    pair.alder.run(&["run"]).ok();
}

#[test]
fn strangers_get_nowhere_and_disturb_nobody() {
    if !fixture::ready("strangers_get_nowhere_and_disturb_nobody") {
        return;
    }
    let pair = Pair::new(&["files"], "", MANUAL);
    let address = pair.birch.address;
    // A client that says nothing, one that drips, and garbage; all stay open while work goes on.
    let silent: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut dripping = TcpStream::connect(address).unwrap();
    dripping.write_all(&[0x16]).unwrap();
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(&noise(9, 5000)).unwrap();
    fill(&pair.alder.live("files"), 20, 10_000, 1);
    let begun = Instant::now();
    pair.alder.run(&["run"]).ok();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "work waited for strangers"
    );
    // The garbage is answered with an end, the silent ones after their deadline.
    garbage
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest);
    assert!(rest.len() < 4096);
    for mut stream in silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        assert_eq!(
            stream.read(&mut [0; 16]).unwrap_or(0),
            0,
            "a silent client was kept"
        );
    }
    assert_eq!(pair.alder.status()["peers"][0]["linked"], true);
    // A node with another key, though it uses birch's name, is refused on both ends.
    let key = pair.birch.dir.join("state/node.key");
    let mut pair = pair;
    pair.birch.stop();
    fs::remove_file(&key).unwrap();
    standin::peer::identity::Identity::create(&key).unwrap();
    pair.birch.start();
    let refused = || {
        pair.alder.status()["peers"][0]["last_error"]
            .as_str()
            .is_some_and(|why| why.contains("SHA256:"))
    };
    pair.alder.wait_for("the wrong key is refused", refused);
    assert_eq!(pair.alder.run(&["run"]).code, 13);
}

#[test]
fn pairing_refuses_wrong_expired_and_used_invitations() {
    if !fixture::ready("pairing_refuses_wrong_expired_and_used_invitations") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    // A third node, not paired with anybody.
    let mut cedar = support::cluster::TestNode::new("cedar", 256 * MIB);
    fs::create_dir_all(cedar.disk.path().join("srv")).unwrap();
    cedar.configure("alder", &["files"], "", MANUAL);
    cedar.edit("[peer.alder]\n", "");
    cedar.edit(
        "home = \"alder\"\npeers = [\"alder\"]",
        "home = \"cedar\"\npeers = []",
    );
    standin::peer::identity::Identity::create(&cedar.dir.join("state/node.key")).unwrap();
    cedar.start();
    let invite = |node: &support::cluster::TestNode, args: &[&str]| {
        let args = [&["pair", "invite", "--json"], args].concat();
        node.run(&args).ok().json()["line"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let line = invite(&pair.birch, &[]);

    // One letter of the body is another.
    let at = line.len() * 2 / 3;
    let other = if &line[at..=at] == "A" { "B" } else { "A" };
    let damaged = format!("{}{other}{}", &line[..at], &line[at + 1..]);
    let said = cedar.run(&["pair", "accept", &damaged]);
    assert!(said.code == 2 && said.err.contains("damaged"), "{said:?}");

    let brief = invite(&pair.birch, &["--expires", "1s"]);
    let made = Instant::now();
    assert!(wait(|| made.elapsed() > Duration::from_millis(1100)));
    let said = cedar.run(&["pair", "accept", &brief]);
    assert!(said.code == 15 && said.err.contains("expired"), "{said:?}");

    cedar.run(&["pair", "accept", &line]).ok();
    assert_eq!(cedar.status()["peers"][0]["name"], "birch");
    // An answer that was lost may be asked for again ...
    cedar.run(&["pair", "accept", &line]).ok();
    // ... but a peer that was removed needs a new invitation.
    cedar.run(&["pair", "remove", "birch"]).ok();
    pair.birch.run(&["pair", "remove", "cedar"]).ok();
    let said = cedar.run(&["pair", "accept", &line]);
    assert!(said.code == 15 && said.err.contains("used"), "{said:?}");
    let log = pair.birch.log();
    assert!(log.contains("refused to pair with cedar"), "{log}");
    assert!(!log.contains(&line), "an invitation's secret is in the log");
    pair.birch.stop();
}

#[test]
fn the_link_may_ride_on_any_pipe() {
    if !fixture::ready("the_link_may_ride_on_any_pipe") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    // What ssh would run on the other side.
    let via = format!(
        "via = [\"{}\", \"--config\", \"{}\", \"link\", \"--stdio\"]\n",
        env!("CARGO_BIN_EXE_standin"),
        pair.birch.config_path().display()
    );
    let address = format!("address = \"{}\"\n", pair.link.address);
    pair.alder.edit(&address, &via);
    pair.alder.stop();
    pair.link.cut();
    pair.alder.start();
    pair.wait_linked();
    fill(&pair.alder.live("files"), 20, 100_000, 1);
    pair.alder.run(&["run"]).ok();
    same_on_both(&pair, "1.1", &["files"]);
}

/// Both nodes know the other's address and dial at the same moment: one link remains, and it stays.
#[test]
fn two_links_that_cross_settle_on_one() {
    if !fixture::ready("two_links_that_cross_settle_on_one") {
        return;
    }
    let mut pair = Pair::new(&["files"], "", MANUAL);
    for _ in 0..3 {
        pair.alder.stop();
        pair.birch.stop();
        let both = format!("[peer.alder]\naddress = \"{}\"\n", pair.alder.address);
        if !fs::read_to_string(pair.birch.config_path())
            .unwrap()
            .contains(&both)
        {
            pair.birch.edit("[peer.alder]\n", &both);
        }
        pair.alder.start();
        pair.birch.start();
        pair.wait_linked();
        fs::write(
            pair.alder.live("files").join("x"),
            noise(pair.link.bytes(), 100),
        )
        .unwrap();
        // A cycle needs the link for as long as it takes; a link that flaps fails it.
        let settled = wait(|| pair.alder.run(&["run"]).code == 0);
        assert!(settled, "{}", pair.alder.log());
        // The one that both prefer may come second; after that nothing moves any more.
        let since = |node: &support::cluster::TestNode| node.status()["peers"][0]["since"].clone();
        let both = || (since(&pair.alder), since(&pair.birch));
        let (mut last, mut from) = (both(), Instant::now());
        let quiet = wait(|| {
            let now = both();
            if now != last {
                (last, from) = (now, Instant::now());
            }
            from.elapsed() > Duration::from_secs(3)
        });
        assert!(quiet, "{}", pair.alder.log());
        let log = pair.alder.log();
        let round = log.rsplit("serves as alder").next().unwrap_or_default();
        assert!(round.matches("link to birch is up").count() <= 4, "{log}");
    }
}
