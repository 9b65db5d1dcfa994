//! A database whose server loses its power in the middle of its work, and goes on at another one.
//!
//! The files of the database are a dataset of the role, its server is the role's service. A client at alder commits one row
//! after the other and notes each that the server confirmed. A point goes to birch while it does, it goes on, and alder's power
//! goes. birch is promoted: the server there recovers from the point, as it would from a power cut. Every commit that was
//! confirmed before the point was taken is there, none is missing in between, and the server takes new ones.

use crate::Scenario;
use crate::nodes::{self, LIVE, two};
use crate::run::say;
use crate::stage::machine::Machine;
use crate::stage::{Kind, Stage, Start};

pub const POSTGRES: Scenario = Scenario {
    name: "postgres",
    about: "PostgreSQL's server loses its power: promoted at the peer, every commit before the point is there",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play: |stage| play(stage, &Server::POSTGRES),
};

pub const MARIADB: Scenario = Scenario {
    name: "mariadb",
    about: "MariaDB's server loses its power: promoted at the peer, every commit before the point is there",
    machines: &["alder", "birch"],
    disks: 1,
    tests: &[],
    start: Start::Ready,
    kinds: Kind::ALL,
    play: |stage| play(stage, &Server::MARIADB),
};

/// A server, and how a person talks to it. The scripts have `$(sql 'STATEMENT')` from `client`.
struct Server {
    /// Empty files of a database, in the image (scripts/vm-image).
    files: &'static str,
    user: &'static str,
    start: &'static str,
    client: &'static str,
}

impl Server {
    const POSTGRES: Server = Server {
        files: "/var/lib/stage/postgres",
        user: "postgres",
        start: "/bin/sh -c 'exec \"$(ls -d /usr/lib/postgresql/*/bin/postgres)\" -D /srv/web/db -k /run/database -h \"\"'",
        client: "psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 -h /run/database -U postgres -d template1 -c",
    };
    const MARIADB: Server = Server {
        files: "/var/lib/stage/mariadb",
        user: "mysql",
        start: "/usr/sbin/mariadbd --datadir=/srv/web/db --socket=/run/database/socket --skip-networking --skip-log-error --pid-file=/run/database/pid",
        client: "mariadb --batch --skip-column-names --socket=/run/database/socket --user=root test -e",
    };
}

const UNIT: &str = "database.service";

/// What the client says of each commit that was confirmed.
const CONFIRMED: &str = "confirmed ";

fn play(stage: &mut Stage, server: &Server) {
    for machine in stage.machines() {
        install(machine, server);
    }
    let alder = stage.machine("alder");
    alder
        .sh(&format!(
            "cp -a {} {LIVE}/db; systemctl start {UNIT}",
            server.files
        ))
        .ok();
    make_table(alder, server);
    two(
        stage,
        "",
        &format!("every = \"manual\"\nservices = [\"{UNIT}\"]"),
    );
    let alder = stage.machine("alder");
    alder.sh("systemctl start commits").ok();
    wait_confirmed(alder, 5);
    let before = confirmed(alder);
    alder.standin(&["run", "web"]).ok();
    wait_confirmed(alder, 5);
    for words in nodes::PEER_IS_AWAY {
        stage.announce(words);
    }
    stage.machine_mut("alder").cut_power();

    let birch = stage.machine("birch");
    let point = birch.points().first().expect("the point").clone();
    let words = [
        "promote",
        "web",
        "--assert-stopped",
        "alder",
        "--accept-loss-after",
        &point,
    ];
    birch.standin(&words).ok();
    birch.wait_state("active");
    let sql = |text: &str| format!("{} '{text}'", server.client);
    birch.wait_until("its server answers", &sql("select 1"));
    let rows = birch.sh(&sql("select n from t order by n")).ok().text();
    let rows: Vec<u64> = rows.lines().map(|row| row.parse().unwrap()).collect();
    let newest = rows.len() as u64;
    assert_eq!(
        rows,
        (1..=newest).collect::<Vec<u64>>(),
        "a commit is missing"
    );
    assert!(
        newest >= before,
        "{before} were confirmed before the point, {newest} are here"
    );
    birch
        .sh(&sql(&format!("insert into t values ({})", newest + 1)))
        .ok();
    say(format!(
        "{before} confirmed before the point, {newest} in it, {} in all",
        confirmed(stage.machine("alder"))
    ));
}

#[track_caller]
fn install(machine: &Machine, server: &Server) {
    let unit = format!(
        "[Unit]\nDescription=database\n[Service]\nUser={}\nRuntimeDirectory=database\nExecStart={}\nTimeoutStopSec=120\n",
        server.user, server.start
    );
    machine.put(&format!("/etc/systemd/system/{UNIT}"), &unit);
    let commits = format!(
        "#!/bin/sh\nn=0\nwhile {} \"insert into t values ($((n + 1)))\"; do n=$((n + 1)); echo {CONFIRMED}$n; done\n",
        server.client
    );
    machine.put("/usr/local/bin/commits", &commits);
    let unit = "[Unit]\nDescription=commits\n[Service]\nExecStart=/usr/local/bin/commits\n";
    machine.put("/etc/systemd/system/commits.service", unit);
    machine
        .sh("chmod 755 /usr/local/bin/commits; systemctl daemon-reload")
        .ok();
}

#[track_caller]
fn make_table(machine: &Machine, server: &Server) {
    let client = server.client.replace(" test -e", " -e");
    machine.wait_until("its server answers", &format!("{client} 'select 1'"));
    if server.user == "mysql" {
        machine
            .sh(&format!("{client} 'create database if not exists test'"))
            .ok();
    }
    let create = format!("{} 'create table t (n bigint primary key)'", server.client);
    machine.sh(&create).ok();
}

fn confirmed(machine: &Machine) -> u64 {
    let lines = machine.journal().into_iter();
    let numbers = lines.filter_map(|line| line.text.strip_prefix(CONFIRMED)?.parse().ok());
    numbers.max().unwrap_or(0)
}

#[track_caller]
fn wait_confirmed(machine: &Machine, more: u64) {
    let before = confirmed(machine);
    machine.wait_until_here("commits are confirmed", || {
        confirmed(machine) >= before + more
    });
}
