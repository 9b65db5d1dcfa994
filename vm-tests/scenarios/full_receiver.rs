//! The receiver's disk is full.
//!
//! Somebody fills birch's disk up to what standin keeps free for others. A cycle says what is wrong, on what, and birch goes on
//! living: what it has stays, other programs can still write. When there is room again the next cycle brings the point over.

use crate::Scenario;
use crate::nodes::two;
use crate::stage::{Kind, Stage, Start};

pub const SCENARIO: Scenario = Scenario {
    name: "full_receiver",
    about: "the receiver's disk is full: a cycle says so, nothing is lost, and it goes on when there is room",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play,
};

fn play(stage: &mut Stage) {
    two(stage, "", "every = \"manual\"");
    for words in ["room", "space", "cycle of web", "reserve"] {
        stage.announce(words);
    }
    let (alder, birch) = (stage.machine("alder"), stage.machine("birch"));
    alder.write("first", 4, 256);
    alder.standin(&["run", "web"]).ok();
    birch.wait_point("1.1");
    let before = birch.fingerprint("1.1");

    // Of 6 GiB; 1 GiB is kept free.
    birch.fill(Some(birch.free() - (1000 << 20)));
    alder.write("second", 16, 512);
    let said = alder.standin(&["run", "web"]);
    let words = format!("{} {}", said.text(), said.errors());
    assert_ne!(said.code, 0, "{words}");
    assert!(words.contains("birch") && words.contains("free"), "{words}");
    assert_eq!(birch.points(), ["1.1"]);
    assert_eq!(birch.fingerprint("1.1"), before);
    birch.write_elsewhere();
    birch.fill(None);
    alder.standin(&["run", "web"]).ok();
    birch.wait_point("1.2");
    assert_eq!(alder.fingerprint("1.2"), birch.fingerprint("1.2"));
}
