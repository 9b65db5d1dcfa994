//! What goes wrong while writers are held, or are about to be.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use standin::error::Code;
use standin::host::dump::Open;
use standin::logic::dump::mysql::Mode;

use crate::ready;
use crate::site::{self, Site, failed, names};
use crate::support::servers::mariadb::Maria;

/// They go on, and the point is not called good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_always_go_on() {
    if !ready("writers_always_go_on") {
        return;
    }
    let site = Site::new(1 << 30);
    let mut server = Maria::empty(&site.datadir(), &["--log-bin=bin"]);
    site.name_server(&server);
    server
        .tell(&[
            "CREATE DATABASE app",
            "CREATE TABLE app.i (a INT)",
            "CREATE TABLE app.m (a INT) ENGINE=MyISAM",
        ])
        .await;
    locked_tables(&site, &server).await;
    long_statement(&site, &server).await;
    hold_dropped(&site, &server).await;
    value_dropped(&site, &server).await;
    connection_killed(&site, &server).await;
    let mut open = held(&site, &server).await;
    server.kill();
    lost(&mut open, "ended before").await;
    let server = Maria::start(&site.datadir(), &["--log-bin=bin"]);
    site.name_server(&server);
    site.writes_go_on(&server).await;
    let mut open = held(&site, &server).await;
    open.release().await.unwrap();
    assert!(open.finish().await.unwrap().position.is_some());
    site.writes_go_on(&server).await;
}

/// Held, which is proved: a commit waits.
async fn held(site: &Site, server: &Maria) -> Open {
    let mut open = site.open(Mode::Freeze);
    open.prepare().await.unwrap();
    site.writes_go_on(server).await;
    open.hold().await.unwrap();
    let mut conn = server.connect().await;
    conn.query_drop("SET SESSION lock_wait_timeout = 1")
        .await
        .unwrap();
    let waited = conn.query_drop("INSERT INTO app.i VALUES (0)").await;
    assert!(
        waited
            .unwrap_err()
            .to_string()
            .contains("Lock wait timeout")
    );
    open
}

async fn lost(open: &mut Open, part: &str) {
    let error = open.release().await.unwrap_err();
    let (_, text) = failed(&error);
    println!("could not {text}");
    names(&text, &[part, "the next point tries again"]);
    open.finish().await.unwrap();
}

async fn locked_tables(site: &Site, server: &Maria) {
    let mut other = server.connect().await;
    other.query_drop("LOCK TABLES app.i WRITE").await.unwrap();
    let mut open = site.open_within(Duration::from_millis(700));
    let error = open.prepare().await.unwrap_err();
    let (code, text) = failed(&error);
    println!("could not {text}");
    assert_eq!(code, Code::Locked);
    names(
        &text,
        &[
            "within 700ms",
            "LOCK TABLES",
            "SHOW FULL PROCESSLIST",
            "`hold`",
        ],
    );
    open.finish().await.unwrap();
    other.query_drop("UNLOCK TABLES").await.unwrap();
    site.writes_go_on(server).await;
}

/// A statement on a table without transactions, that runs until it is killed.
async fn endless(server: &Maria) -> (u32, tokio::task::JoinHandle<()>) {
    let mut conn = server.connect().await;
    let id = conn.id();
    let running = tokio::spawn(async move {
        let _ = conn.query_drop("INSERT INTO app.m SELECT SLEEP(600)").await;
    });
    let runs = format!(
        "SELECT id FROM information_schema.processlist WHERE id = {id} AND state = 'User sleep'"
    );
    site::until(|| server.ask::<u64>(&runs)).await;
    (id, running)
}

async fn long_statement(site: &Site, server: &Maria) {
    let (id, running) = endless(server).await;
    let mut open = site.open_within(Duration::from_millis(700));
    open.prepare().await.unwrap();
    let error = open.hold().await.unwrap_err();
    let (code, text) = failed(&error);
    println!("could not {text}");
    assert_eq!(code, Code::Locked);
    names(&text, &["BLOCK_DDL", "MyISAM", "`hold`"]);
    open.release().await.unwrap();
    site.writes_go_on(server).await;
    open.finish().await.unwrap();
    server.tell(&[&format!("KILL {id}")]).await;
    running.await.unwrap();
}

/// The caller has no more time, while the server waits.
async fn hold_dropped(site: &Site, server: &Maria) {
    let (id, running) = endless(server).await;
    let mut open = site.open_within(Duration::from_secs(60));
    open.prepare().await.unwrap();
    let waiting =
        "SELECT id FROM information_schema.processlist WHERE info LIKE 'BACKUP STAGE BLOCK%'";
    tokio::select! {
        done = open.hold() => panic!("{done:?}"),
        _ = site::until(|| server.ask::<u64>(waiting)) => {}
    }
    open.release().await.unwrap();
    site::until(|| async { server.ask::<u64>(waiting).await.is_none().then_some(()) }).await;
    site.writes_go_on(server).await;
    open.finish().await.unwrap();
    server.tell(&[&format!("KILL {id}")]).await;
    running.await.unwrap();
}

async fn value_dropped(site: &Site, server: &Maria) {
    drop(held(site, server).await);
    site.writes_go_on(server).await;
}

async fn connection_killed(site: &Site, server: &Maria) {
    let mut open = held(site, server).await;
    let ours = "SELECT id FROM information_schema.processlist WHERE command = 'Sleep' AND user = 'root' ORDER BY id LIMIT 1";
    let id = server.ask::<u64>(ours).await.unwrap();
    server.tell(&[&format!("KILL {id}")]).await;
    site.writes_go_on(server).await;
    lost(&mut open, "ended before").await;
}
