//! One connection to a MariaDB or MySQL server, and what its errors mean for an admin.
//!
//! Promise: it is never opened again by itself: locks that were taken on it are held for as long as it answers. Errors name
//! the server and say what to do; passwords are in none of them.
//!
//! It deliberately does not know what it is used for.

use std::time::Duration;

use anyhow::Result;
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, DriverError, Error, IoError, OptsBuilder, Row, ServerError};

use super::CONNECT_MAX;
use crate::error::{Code, Failure};
use crate::host::dump::secret;
use crate::logic::dump::{Address, Server};

/// Who is asked where the config names nobody: root, whom servers know by the socket's peer.
pub const USER_DEFAULT: &str = "root";

/// How long a connection that says nothing lives, in seconds: longer than all other dumps of the role take to prepare.
const IDLE_S: u64 = 8 * 60 * 60;

/// Longest packet, in bytes: statements and rows here are short.
const PACKET_BYTES_MAX: usize = 16 << 20;

/// Longest that closing a connection may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Longest that a server may take to end a connection of ours.
const KILL_MAX: Duration = Duration::from_secs(3);

/// Error numbers of the servers (MariaDB "Error Codes", MySQL "Server Error Message Reference").
mod number {
    pub const TOO_MANY_CONNECTIONS: u16 = 1040;
    pub const DATABASE_DENIED: u16 = 1044;
    pub const ACCESS_DENIED: u16 = 1045;
    pub const TABLE_DENIED: u16 = 1142;
    pub const HOST_DENIED: u16 = 1130;
    pub const LOCK_WAIT: u16 = 1205;
    pub const PRIVILEGE_MISSING: u16 = 1227;
    pub const ACCESS_DENIED_NO_PASSWORD: u16 = 1698;
    pub const CONNECTION_KILLED: u16 = 1927;
    pub const STATEMENT_TIME: u16 = 1969;
    pub const SHUTTING_DOWN: u16 = 1053;
}

pub struct Session {
    conn: Conn,
    server: Server,
}

impl Session {
    pub async fn open(server: &Server) -> Result<Session> {
        let options = options(server)?;
        let opened = tokio::time::timeout(CONNECT_MAX, Conn::new(options)).await;
        match opened {
            Ok(Ok(conn)) => Ok(Session {
                conn,
                server: server.clone(),
            }),
            Ok(Err(error)) => Err(explained("connect to", server, &error)),
            Err(_) => {
                let what = format!("connect to {} within {CONNECT_MAX:?}", place(server));
                let hint = "the server hangs, or something else listens there: look at its log";
                Err(Failure::new(Code::Unreachable, what).hint(hint).into())
            }
        }
    }

    /// For messages.
    pub fn place(&self) -> String {
        place(&self.server)
    }

    /// The server's number of this connection.
    pub fn id(&self) -> u32 {
        self.conn.id()
    }

    /// Runs a statement.
    pub async fn run(&mut self, statement: &str) -> Result<(), Error> {
        self.conn.query_drop(statement).await
    }

    /// Runs a statement; an error says what it was for.
    pub async fn tell(&mut self, doing: &str, statement: &str) -> Result<()> {
        let run = self.run(statement).await;
        run.map_err(|error| self.explain(doing, &error))
    }

    /// The first column of the first row.
    pub async fn one<T: FromValue>(&mut self, doing: &str, statement: &str) -> Result<Option<T>> {
        let row: Result<Option<Row>, Error> = self.conn.query_first(statement).await;
        let row = row.map_err(|error| self.explain(doing, &error))?;
        Ok(row.and_then(|mut row| row.take_opt(0)?.ok()))
    }

    /// The first column of every row; what is not text is left out.
    pub async fn list(&mut self, doing: &str, statement: &str) -> Result<Vec<String>> {
        let rows = self.rows(statement).await;
        let rows = rows.map_err(|error| self.explain(doing, &error))?;
        Ok(rows
            .into_iter()
            .filter_map(|row| row.into_iter().next()?)
            .collect())
    }

    /// Every row, as texts; NULL and what is no text is none.
    pub async fn rows(&mut self, statement: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let rows: Vec<Row> = self.conn.query(statement).await?;
        let texts = |row: Row| {
            let values = row.unwrap_raw().into_iter();
            values
                .map(|value| String::from_value_opt(value?).ok())
                .collect()
        };
        Ok(rows.into_iter().map(texts).collect())
    }

    pub fn explain(&self, doing: &str, error: &Error) -> anyhow::Error {
        explained(&format!("{doing} at"), &self.server, error)
    }

    /// Says goodbye; a server that does not listen is left.
    pub async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_MAX, self.conn.disconnect()).await;
    }
}

/// Ends a connection of ours that hangs in a statement, from another one: its locks end with it.
pub async fn kill(server: &Server, id: u32) -> Result<()> {
    let killing = async {
        let mut session = Session::open(server).await?;
        // No such thread: it is gone already.
        let gone = 1094;
        match session.run(&format!("KILL CONNECTION {id}")).await {
            Err(Error::Server(error)) if error.code == gone => {}
            Err(error) => return Err(session.explain(&format!("end connection {id}"), &error)),
            Ok(()) => {}
        }
        session.close().await;
        Ok(())
    };
    match tokio::time::timeout(KILL_MAX, killing).await {
        Ok(done) => done,
        Err(_) => {
            let what = format!(
                "end connection {id} of {}: it does not answer",
                place(server)
            );
            Err(Failure::new(Code::Unreachable, what).into())
        }
    }
}

/// Whether the server gave up waiting for a lock.
pub fn waited_too_long(error: &Error) -> bool {
    matches!(error, Error::Server(error) if matches!(error.code, number::LOCK_WAIT | number::STATEMENT_TIME))
}

/// Whether the connection, and with it every lock, is gone.
pub fn lost(error: &Error) -> bool {
    match error {
        Error::Server(error) => matches!(
            error.code,
            number::CONNECTION_KILLED | number::SHUTTING_DOWN
        ),
        _ => true,
    }
}

fn options(server: &Server) -> Result<OptsBuilder> {
    let password = server.password.as_ref().map(secret::read).transpose()?;
    let options = OptsBuilder::default()
        .user(Some(server.user.as_deref().unwrap_or(USER_DEFAULT)))
        .pass(password.as_ref().map(|word| word.as_str()))
        .prefer_socket(false)
        .max_allowed_packet(Some(PACKET_BYTES_MAX))
        .wait_timeout(Some(IDLE_S as usize))
        .setup(vec![format!("SET SESSION wait_timeout = {IDLE_S}")]);
    Ok(match &server.address {
        Address::Socket(path) => options.socket(Some(path.to_string_lossy())),
        Address::Tcp(host, port) => options.ip_or_hostname(host.as_str()).tcp_port(*port),
    })
}

fn place(server: &Server) -> String {
    format!("the server at {}", server.address)
}

/// An error in words for an admin: `doing` the server's place.
fn explained(doing: &str, server: &Server, error: &Error) -> anyhow::Error {
    let user = server.user.as_deref().unwrap_or(USER_DEFAULT);
    let (code, why, hint) = match error {
        Error::Server(error) => by_number(error, user),
        Error::Io(IoError::Io(error)) => (
            Code::Unreachable,
            error.to_string(),
            Some("is it running (systemctl status mariadb), and is the socket or port right?".to_owned()),
        ),
        Error::Driver(DriverError::ConnectionClosed) => (
            Code::Unreachable,
            "it closed the connection".to_owned(),
            Some("look into its log".to_owned()),
        ),
        Error::Driver(DriverError::UnknownAuthPlugin { name }) => (
            Code::Refused,
            format!("account {user} logs in by {name}, which this program cannot"),
            Some("use an account with a password (mysql_native_password, caching_sha2_password), or root over the unix socket".to_owned()),
        ),
        error => (Code::Failed, error.to_string(), None),
    };
    let failure = Failure::new(code, format!("{doing} {}: {why}", place(server)));
    match hint {
        Some(hint) => failure.hint(hint).into(),
        None => failure.into(),
    }
}

fn by_number(error: &ServerError, user: &str) -> (Code, String, Option<String>) {
    let said = format!("{} (error {})", error.message, error.code);
    let (code, hint) = match error.code {
        number::ACCESS_DENIED | number::ACCESS_DENIED_NO_PASSWORD | number::HOST_DENIED => (
            Code::Refused,
            format!("is the password of {user} the right one? Name it by password-file or password-env; root needs none over the unix socket"),
        ),
        number::PRIVILEGE_MISSING | number::DATABASE_DENIED | number::TABLE_DENIED => (
            Code::Refused,
            format!("grant account {user} what the server says is missing"),
        ),
        number::TOO_MANY_CONNECTIONS => (
            Code::Unreachable,
            "raise max_connections, or close what is idle; an account with SUPER or CONNECTION ADMIN may use one connection more".to_owned(),
        ),
        number::SHUTTING_DOWN | number::CONNECTION_KILLED => {
            (Code::Unreachable, "look into its log".to_owned())
        }
        _ => return (Code::Failed, said, None),
    };
    (code, said, Some(hint))
}
