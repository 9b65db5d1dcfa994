//! A connection to PostgreSQL, and what its refusals mean.
//!
//! Promise: a session ends with its value, also in the middle of a question. Over a unix socket without a password the server
//! sees the system user of the name with which we log in (`peer`, as Debian's servers want it): one thread, which ends at once,
//! takes that user's effective id to connect, and nothing else of it.
//!
//! It deliberately encrypts nothing: sockets, and servers on this machine.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::error::{Code, Failure};
use crate::host::command::harmless;
use crate::host::dump::secret;
use crate::host::user::{self, User};
use crate::logic::dump::postgres::{PORT, Postgres, SOCKET_PREFIX, USER};
use crate::logic::dump::{Address, Secret, Server};

/// Longest that a server may take to let us in.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Between two tries while a server starts.
const STARTING_EVERY: Duration = Duration::from_millis(200);

/// Oldest server: its log is called wal, its temporary slots are known.
const VERSION_MIN: u32 = 100_000;

/// First server that looks now and then whether its client still lives.
const VERSION_LOOKS: u32 = 140_000;

/// How to reach a server, all of it decided.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: Address,
    pub user: String,
    pub password: Option<Secret>,
    /// The system user whom the server sees, and as whom its tools run: the one of the same name, else `postgres`, which the
    /// server may map, else one without rights. Never root, unless the daemon is nobody else: what is loaded came from a peer.
    pub system: Option<User>,
}

impl Target {
    /// The dump's server, or another.
    pub fn new(how: &Postgres, other: Option<&Server>) -> Target {
        let server = other.unwrap_or(&how.server);
        let name = server.user.as_deref().unwrap_or(USER);
        let root = rustix::process::geteuid().is_root();
        let system = user::system(name)
            .or_else(|| user::system(USER))
            .or_else(user::unprivileged);
        Target {
            address: match &server.address {
                Address::Socket(path) => Address::Socket(socket_file(path)),
                tcp => tcp.clone(),
            },
            user: name.to_owned(),
            password: server.password.clone(),
            system: system.filter(|_| root),
        }
    }

    /// The user whom `peer` sees.
    fn peer(&self) -> Option<User> {
        self.system.filter(|_| self.password.is_none())
    }

    /// What clients of PostgreSQL read from their environment. The password is not among it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let (host, port) = match &self.address {
            Address::Socket(file) => {
                let dir = file.parent().unwrap_or(Path::new("/"));
                (dir.display().to_string(), port_of(file).to_string())
            }
            Address::Tcp(host, port) => (host.clone(), port.to_string()),
        };
        let seconds = CONNECT_MAX.as_secs().to_string();
        vec![
            ("PGHOST", host),
            ("PGPORT", port),
            ("PGUSER", self.user.clone()),
            ("PGCONNECT_TIMEOUT", seconds),
        ]
    }
}

fn socket_file(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.starts_with(SOCKET_PREFIX) {
        true => path.to_owned(),
        false => path.join(format!("{SOCKET_PREFIX}{PORT}")),
    }
}

fn port_of(file: &Path) -> u16 {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let port = name
        .strip_prefix(SOCKET_PREFIX)
        .and_then(|port| port.parse().ok());
    port.unwrap_or(PORT)
}

/// A connection that was let in.
pub struct Session {
    client: Client,
    task: AbortHandle,
    /// Why the connection ended.
    ended: Arc<Mutex<Option<String>>>,
    address: String,
    user: String,
    /// As server_version_num: 150004 is 15.4.
    pub version: u32,
    /// Name and version.
    pub server: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connects to the database of maintenance, or to the template where that was dropped.
    pub async fn open(target: &Target) -> Result<Session> {
        match Session::connect(target, "postgres").await {
            Err(Refused::Server(error)) if has(&error, &SqlState::INVALID_CATALOG_NAME) => {
                Session::to(target, "template1").await
            }
            opened => opened.map_err(|refused| refused.told(target, "postgres")),
        }
    }

    pub async fn to(target: &Target, database: &str) -> Result<Session> {
        let opened = Session::connect(target, database).await;
        opened.map_err(|refused| refused.told(target, database))
    }

    /// As `to`, with patience for a server that is starting; the caller has the limit.
    pub async fn when_started(target: &Target, database: &str) -> Result<Session> {
        loop {
            match Session::connect(target, database).await {
                Err(Refused::Server(error)) if has(&error, &SqlState::CANNOT_CONNECT_NOW) => {
                    tokio::time::sleep(STARTING_EVERY).await;
                }
                opened => return opened.map_err(|refused| refused.told(target, database)),
            }
        }
    }

    async fn connect(target: &Target, database: &str) -> Result<Session, Refused> {
        let end = Instant::now() + CONNECT_MAX;
        let connecting = async {
            match &target.address {
                Address::Socket(file) => {
                    let (file, peer) = (file.clone(), target.peer());
                    let stream = unix(file, peer).await.map_err(Refused::Unreachable)?;
                    Session::greet(stream, target, database).await
                }
                Address::Tcp(host, port) => {
                    let stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await;
                    let stream = stream.map_err(|e| Refused::Unreachable(e.into()))?;
                    Session::greet(stream, target, database).await
                }
            }
        };
        let left = end.saturating_duration_since(Instant::now());
        let late = || Refused::Unreachable(anyhow!("no answer within {} s", CONNECT_MAX.as_secs()));
        tokio::time::timeout(left, connecting)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn greet<S>(stream: S, target: &Target, database: &str) -> Result<Session, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = Config::new();
        config
            .user(&target.user)
            .dbname(database)
            .application_name("standin");
        if let Some(secret) = &target.password {
            let password = secret::read(secret).map_err(Refused::Password)?;
            config.password(password.as_bytes());
        }
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(Refused::Server)?;
        let ended = Arc::new(Mutex::new(None));
        let note = ended.clone();
        let task = tokio::spawn(async move {
            let end = connection.await;
            let why = end.err().map(|error| plain(&error));
            *note.lock().unwrap_or_else(PoisonError::into_inner) = why;
        });
        let mut session = Session {
            client,
            task: task.abort_handle(),
            ended,
            address: target.address.to_string(),
            user: target.user.clone(),
            version: 0,
            server: String::new(),
        };
        session.greeted().await.map_err(Refused::Unfit)?;
        Ok(session)
    }

    async fn greeted(&mut self) -> Result<()> {
        let asking = "ask PostgreSQL for its version";
        let sql = "SELECT current_setting('server_version_num'), split_part(current_setting('server_version'), ' ', 1)";
        let row = self.row(sql, asking).await?;
        self.version = row[0].parse().context(asking)?;
        self.server = format!("PostgreSQL {}", harmless(row[1].as_bytes()));
        if self.version < VERSION_MIN {
            let what = format!("use {} at {}: it is too old", self.server, self.address);
            let hint =
                "PostgreSQL 10 and newer are known here; dump an older one with kind = \"command\"";
            return Err(Failure::new(Code::Refused, what).hint(hint).into());
        }
        if self.version >= VERSION_LOOKS {
            let sql = "SET client_connection_check_interval = '1s'";
            self.run(sql, "prepare the session with PostgreSQL").await?;
        }
        Ok(())
    }

    /// Settings for the sessions of programs: the server notices when one was killed, though its question goes on.
    pub fn looks(&self) -> &'static str {
        match self.version {
            VERSION_LOOKS.. => "-c client_connection_check_interval=1s",
            _ => "",
        }
    }

    /// Runs commands.
    pub async fn run(&self, sql: &str, doing: &str) -> Result<()> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| self.refusal(&error, doing))
    }

    /// All rows as text; what is null is empty.
    pub async fn rows(&self, sql: &str, doing: &str) -> Result<Vec<Vec<String>>> {
        let answer = self.client.simple_query(sql).await;
        let answer = answer.map_err(|error| self.refusal(&error, doing))?;
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or_default().to_owned())
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The only row.
    pub async fn row(&self, sql: &str, doing: &str) -> Result<Vec<String>> {
        let mut rows = self.rows(sql, doing).await?;
        let row = rows.pop().filter(|_| rows.is_empty());
        row.ok_or_else(|| anyhow!("{doing}: PostgreSQL did not answer with one row"))
    }

    /// The only word.
    pub async fn word(&self, sql: &str, doing: &str) -> Result<String> {
        let mut row = self.row(sql, doing).await?;
        row.pop()
            .ok_or_else(|| anyhow!("{doing}: PostgreSQL did not answer with a word"))
    }

    fn refusal(&self, error: &tokio_postgres::Error, doing: &str) -> Error {
        if error.is_closed() || self.client.is_closed() {
            let why = self
                .ended
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let why = why.unwrap_or_else(|| plain(error));
            let what = format!("{doing}: the connection to PostgreSQL ended: {why}");
            let hint = "the server was stopped, or somebody ended the session: look at its log; the next point tries again";
            return Failure::new(Code::Failed, what).hint(hint).into();
        }
        let what = format!("{doing}: {}", plain(error));
        let denied = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        let failure = Failure::new(if denied { Code::Refused } else { Code::Failed }, what);
        let user = &self.user;
        let hint = match (denied, error.as_db_error().and_then(|error| error.hint())) {
            (true, _) => format!(
                "log in as a superuser, or let {user} do it: docs/content.md, \"PostgreSQL\", lists what to GRANT for each mode"
            ),
            (false, Some(hint)) => harmless(hint.as_bytes()),
            (false, None) => return failure.into(),
        };
        failure.hint(hint).into()
    }
}

/// Why there is no session.
enum Refused {
    Unreachable(Error),
    Password(Error),
    Server(tokio_postgres::Error),
    Unfit(Error),
}

impl Refused {
    fn told(self, target: &Target, database: &str) -> Error {
        let (address, name) = (&target.address, &target.user);
        match self {
            Refused::Password(error) | Refused::Unfit(error) => error,
            Refused::Unreachable(error) => {
                let what = format!("reach PostgreSQL at {address}: {error:#}");
                let denied = |cause: &(dyn std::error::Error + 'static)| {
                    let io = cause.downcast_ref::<std::io::Error>();
                    io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
                };
                let hint = match error.chain().any(denied) {
                    true => format!(
                        "the system user {name} (or postgres, where there is none) must be let into the directories of the socket"
                    ),
                    false => {
                        "start the server, or mend `socket`, or `host` and `port`, of the dump"
                            .to_owned()
                    }
                };
                Failure::new(Code::Failed, what).hint(hint).into()
            }
            Refused::Server(error) => {
                let login = format!("log in to PostgreSQL at {address} as {name}: ");
                let code = error.code();
                let hint = match code {
                    Some(&SqlState::INVALID_PASSWORD) => {
                        "mend the password in `password-file` or `password-env` of the dump, or `user`".to_owned()
                    }
                    Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => format!(
                        "the server's pg_hba.conf must let {name} in: by `peer` (the daemon connects as the system user {name}, or postgres where there is none), or by a password (password-file)"
                    ),
                    Some(&SqlState::CANNOT_CONNECT_NOW) => {
                        "the server starts or stops; the next point tries again".to_owned()
                    }
                    Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                        "raise max_connections of the server, or log in as a superuser, for whom some are kept".to_owned()
                    }
                    Some(&SqlState::INVALID_CATALOG_NAME) => {
                        format!("create the database {database}, or mend `databases` of the dump")
                    }
                    Some(_) => "look at the server's log".to_owned(),
                    // The library's own: nothing to log in with.
                    None => "if the server wants a password, write password-file = \"/PATH\" into the dump".to_owned(),
                };
                let what = login + &plain(&error);
                let code = if code.is_some() {
                    Code::Refused
                } else {
                    Code::Failed
                };
                Failure::new(code, what).hint(hint).into()
            }
        }
    }
}

fn has(error: &tokio_postgres::Error, state: &SqlState) -> bool {
    error.code() == Some(state)
}

/// The server's own words, where it has any; never what it shows of rows.
fn plain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => harmless(error.message().as_bytes()),
        None => {
            let error: &dyn std::error::Error = error;
            let source = error.source().map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        }
    }
}

/// Connects on a thread of its own, which the server sees as `peer`.
async fn unix(file: PathBuf, peer: Option<User>) -> Result<tokio::net::UnixStream> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let connect = move || -> std::io::Result<UnixStream> {
        if let Some(peer) = peer {
            // The effective id alone: with the real one, that user could signal this process meanwhile.
            let uid = rustix::process::Uid::from_raw(peer.uid);
            rustix::thread::set_thread_res_uid(None, uid, None)?;
        }
        let stream = UnixStream::connect(file)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    std::thread::Builder::new()
        .name("postgres-connect".to_owned())
        .spawn(move || {
            // Nobody waits any more: too late.
            let _ = tell.send(connect());
        })
        .context("start a thread")?;
    let stream = told.await.context("hear of the connection")??;
    Ok(tokio::net::UnixStream::from_std(stream)?)
}
