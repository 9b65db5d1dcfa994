//! A MariaDB server on a directory, and statements to it by a client library.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use standin::logic::dump::{Address, Secret, Server};

use super::super::fixture::run;

/// As whom servers run: the packages of the bare server make no account.
const OWNER: &str = "nobody:nogroup";

/// Longest that a server may take to answer, or to end.
const START_MAX: Duration = Duration::from_secs(60);

/// Whether the server's programs are there. Says so when they are not.
pub fn ready(test: &str) -> bool {
    let names = [
        "mariadbd",
        "mariadb-install-db",
        "mariadb-dump",
        "mariadb",
        "setpriv",
    ];
    super::programs(test, &names)
}

/// An empty data directory, made once and copied for every server. Others run at the same time: it appears whole.
fn template() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = kept.join("mariadb-template");
    if path.join("ibdata1").exists() {
        return path;
    }
    let dir = tempfile::tempdir_in(kept).unwrap();
    let new = dir.path().join("data");
    let data = format!("--datadir={}", new.display());
    // A server that starts removes every temporary table in its tmpdir, those of a server that runs among them.
    let tmpdir = format!("--tmpdir={}", dir.path().display());
    run(
        "mariadb-install-db",
        [
            "--no-defaults",
            "--user=root",
            &data,
            &tmpdir,
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
            "--innodb-log-file-size=8M",
        ],
    );
    // Fails where another one was faster.
    let _ = std::fs::rename(&new, &path);
    path
}

/// A server's process.
pub struct Maria {
    child: Child,
    pub datadir: PathBuf,
    pub socket: PathBuf,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Maria {
    /// On a new, empty data directory. Further options as mariadbd takes them.
    pub fn empty(datadir: &Path, options: &[&str]) -> Maria {
        std::fs::create_dir_all(datadir).unwrap();
        run(
            "cp",
            ["-rT".as_ref(), template().as_os_str(), datadir.as_os_str()],
        );
        run(
            "chown",
            ["-R".as_ref(), OWNER.as_ref(), datadir.as_os_str()],
        );
        Maria::start(datadir, options)
    }

    /// On a data directory that is there: it recovers, if it must. Returns when it answers.
    pub fn start(datadir: &Path, options: &[&str]) -> Maria {
        let mut server = Maria::spawn(datadir, options);
        let end = Instant::now() + START_MAX;
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "the server on {} does not answer ({ended:?}): {}",
                datadir.display(),
                server.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn spawn(datadir: &Path, options: &[&str]) -> Maria {
        let dir = tempfile::tempdir().unwrap();
        run("chown", [OWNER.as_ref(), dir.path().as_os_str()]);
        let (socket, log) = (dir.path().join("sock"), dir.path().join("log"));
        let output = std::fs::File::create(&log).unwrap();
        let mut command = Command::new("setpriv");
        // Ends with the thread of the test that started it.
        command.args([
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "--pdeathsig=KILL",
        ]);
        command.args(["mariadbd", "--no-defaults", "--skip-networking"]);
        command.arg(format!("--datadir={}", datadir.display()));
        command.arg(format!("--socket={}", socket.display()));
        command.arg(format!("--pid-file={}", dir.path().join("pid").display()));
        command.arg(format!("--tmpdir={}", dir.path().display()));
        command.args([
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=8M",
            "--key-buffer-size=1M",
            "--aria-pagecache-buffer-size=1M",
            "--performance-schema=OFF",
        ]);
        command.args(options);
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Maria {
            child: command.spawn().unwrap(),
            datadir: datadir.to_owned(),
            socket,
            log,
            _dir: dir,
        }
    }

    /// What it said.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let file = std::fs::File::open(&self.log);
        let _ = file.map(|mut file| file.read_to_string(&mut text));
        text
    }

    /// As the config names it; without a user it is root.
    pub fn server(&self) -> Server {
        Server {
            address: Address::Socket(self.socket.clone()),
            user: None,
            password: None,
        }
    }

    /// As an account with a password in a file.
    pub fn server_as(&self, user: &str, password: &Path) -> Server {
        Server {
            user: Some(user.to_owned()),
            password: Some(Secret::File(password.to_owned())),
            ..self.server()
        }
    }

    /// A connection of root.
    pub async fn connect(&self) -> Conn {
        connect(&self.socket).await
    }

    /// Runs statements, one after the other, as root.
    pub async fn tell(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        conn.disconnect().await.unwrap();
    }

    /// The first column of the first row.
    pub async fn ask<T: mysql_async::prelude::FromValue + Send + 'static>(
        &self,
        statement: &str,
    ) -> Option<T> {
        let mut conn = self.connect().await;
        let row: Option<(T,)> = conn
            .query_first(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        conn.disconnect().await.unwrap();
        row.map(|row| row.0)
    }

    /// As power loss would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Maria {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection of root to a server.
pub async fn connect(socket: &Path) -> Conn {
    let options = OptsBuilder::default()
        .user(Some("root"))
        .prefer_socket(false)
        .max_allowed_packet(Some(16 << 20))
        .wait_timeout(Some(28800))
        .socket(Some(socket.to_string_lossy()));
    Conn::new(options).await.unwrap()
}
