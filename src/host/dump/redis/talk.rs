//! One conversation with a Redis server (or Valkey): a command, its reply, and so on.
//!
//! Promise: every wait has a limit; a reply is read up to a bound; a conversation that was cut in the middle (a step that was
//! dropped) answers nothing any more. The password is sent, and is in no error.
//!
//! RESP2 as in <https://redis.io/docs/latest/develop/reference/protocol-spec/>: of six kinds of reply five are ever sent to the
//! few commands that are needed here, which is why no library is (docs/decisions/0026-redis-protocol.md).
//!
//! It deliberately does not know what is asked, nor why.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::error::{Code, Failure};
use crate::host::command::harmless;
use crate::host::dump::secret;
use crate::logic::dump::{Address, Server};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Longest wait for a reply: a server that runs a slow command of somebody's answers nobody meanwhile.
const REPLY_MAX: Duration = Duration::from_secs(30);

/// Most of one line, of one text and of one list in a reply. INFO is some 6 KiB.
const LINE_BYTES_MAX: usize = 4 << 10;
const TEXT_BYTES_MAX: usize = 1 << 20;
const LIST_MAX: usize = 1024;

/// What a dump needs to be allowed, as the ACL of the server spells it.
const RIGHTS: &str = "+info +config|get +bgsave +client|pause +client|unpause";

trait Stream: AsyncBufRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncBufRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A reply; an error is an `Err` of `Talk::ask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    Nothing,
    List(Vec<Reply>),
}

/// The server's own words for what it will not do. Reads after "could not".
#[derive(Debug, thiserror::Error)]
#[error("make redis at {server} do {command}: it says {words}")]
pub struct Refused {
    server: Address,
    command: String,
    pub words: String,
}

pub struct Talk {
    stream: Box<dyn Stream>,
    server: Address,
    /// A command was sent whose reply was not read.
    cut: bool,
}

impl Talk {
    /// Connects and logs in.
    pub async fn begin(server: &Server) -> Result<Talk> {
        let address = &server.address;
        let connecting = async {
            Ok::<Box<dyn Stream>, std::io::Error>(match address {
                Address::Socket(path) => Box::new(BufStream::new(UnixStream::connect(path).await?)),
                Address::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(BufStream::new(stream))
                }
            })
        };
        let why = match timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(stream)) => {
                let mut talk = Talk {
                    stream,
                    server: address.clone(),
                    cut: false,
                };
                talk.log_in(server).await?;
                return Ok(talk);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_MAX.as_secs()),
        };
        let what = format!("reach redis at {address}: {why}");
        let hint = "see that the server runs and listens there (systemctl status redis-server); the dump's `socket`, or `host` and `port`, say where it is looked for";
        Err(Failure::new(Code::Unreachable, what).hint(hint).into())
    }

    async fn log_in(&mut self, server: &Server) -> Result<()> {
        let Some(secret) = &server.password else {
            return Ok(());
        };
        let password = secret::read(secret)?;
        let words: Vec<&str> = match &server.user {
            Some(user) => vec!["AUTH", user, &password],
            None => vec!["AUTH", &password],
        };
        self.ask(&words).await.map(drop)
    }

    /// Sends a command and gives its reply. What the server refuses is a [`Refused`] or a `Failure` in the chain.
    pub async fn ask(&mut self, words: &[&str]) -> Result<Reply> {
        // The password is the last word of AUTH.
        let shown = match words {
            ["AUTH", ..] => "AUTH".to_owned(),
            words => words.join(" "),
        };
        let asking = || format!("ask redis at {} for {shown}", self.server);
        if std::mem::replace(&mut self.cut, true) {
            bail!("{}: an earlier answer was not waited for", asking());
        }
        let answered = timeout(REPLY_MAX, exchange(&mut *self.stream, words)).await;
        let reply = match answered {
            Ok(reply) => reply.with_context(asking)?,
            Err(_) => {
                let what = format!("{}: no answer within {} s", asking(), REPLY_MAX.as_secs());
                let hint = "the server is stuck, or runs somebody's slow command: see SLOWLOG GET";
                return Err(Failure::new(Code::Failed, what).hint(hint).into());
            }
        };
        self.cut = false;
        reply.map_err(|words| refused(&self.server, &shown, &words))
    }

    /// One section of INFO, by its keys.
    pub async fn info(&mut self, section: &str) -> Result<Info> {
        match self.ask(&["INFO", section]).await? {
            Reply::Text(text) => Ok(Info::read(&text)),
            other => bail!("understand what redis answers to INFO {section}: {other:?}"),
        }
    }

    /// A setting of the running server; none where it has no such.
    pub async fn setting(&mut self, name: &str) -> Result<Option<String>> {
        match self.ask(&["CONFIG", "GET", name]).await? {
            Reply::List(list) => Ok(match list.as_slice() {
                [_, Reply::Text(value)] => Some(value.clone()),
                _ => None,
            }),
            other => bail!("understand what redis answers to CONFIG GET {name}: {other:?}"),
        }
    }
}

/// What INFO says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    fn read(text: &str) -> Info {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Info(
            pairs
                .map(|(key, word)| (key.to_owned(), harmless(word.as_bytes())))
                .collect(),
        )
    }

    pub fn word(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// A number that is there whatever the version.
    pub fn number(&self, key: &str) -> Result<u64> {
        let word = self.word(key);
        word.parse()
            .with_context(|| format!("find {key} in what redis says of itself: it says {word:?}"))
    }
}

fn refused(server: &Address, command: &str, words: &str) -> anyhow::Error {
    let first = words.split(' ').next().unwrap_or_default();
    let shown = Path::new("/etc/redis/redis.conf").display();
    let hint = match first {
        "NOAUTH" => "it wants a password: name it by password-file or password-env, and the user where it is not \"default\"".to_owned(),
        "WRONGPASS" => "the user or the password is wrong: compare password-file or password-env with the server's ACL (ACL LIST) or requirepass".to_owned(),
        "NOPERM" => format!("allow it: ACL SETUSER NAME on {RIGHTS}; then ACL SAVE, or the same in {shown}"),
        "DENIED" | "-DENIED" => format!("the server is in protected mode: bind it to a loopback address in {shown}, or give it a password"),
        "LOADING" => "it is still loading its data: the next point tries again".to_owned(),
        _ if words.contains("without any password configured") => "the server knows no password: take password-file or password-env out".to_owned(),
        _ if words.contains("unknown command") => "the server's configuration renames or forbids that command (rename-command): a dump needs it".to_owned(),
        _ => {
            return Refused {
                server: server.clone(),
                command: command.to_owned(),
                words: words.to_owned(),
            }
            .into();
        }
    };
    let what = format!("make redis at {server} do {command}: it says {words}");
    Failure::new(Code::Refused, what).hint(hint).into()
}

/// The reply, or the server's words for a refusal.
async fn exchange(stream: &mut dyn Stream, words: &[&str]) -> Result<Result<Reply, String>> {
    let mut sent = Zeroizing::new(format!("*{}\r\n", words.len()).into_bytes());
    // Grown at once: what is moved when it grows is not wiped.
    sent.reserve(words.iter().map(|word| word.len() + 32).sum());
    for word in words {
        sent.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        sent.extend_from_slice(word.as_bytes());
        sent.extend_from_slice(b"\r\n");
    }
    stream
        .write_all(&sent)
        .await
        .context("the connection broke")?;
    stream.flush().await.context("the connection broke")?;
    reply(stream).await
}

async fn reply(stream: &mut dyn Stream) -> Result<Result<Reply, String>> {
    let line = line(stream).await?;
    let Some((kind, rest)) = line.split_at_checked(1) else {
        bail!("an empty reply");
    };
    let count = || rest.parse::<i64>().context("a reply without its length");
    Ok(Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => return Ok(Err(harmless(rest.as_bytes()))),
        ":" => Reply::Number(count()?),
        "$" => text(stream, count()?).await?,
        "*" => {
            let count = usize::try_from(count()?).unwrap_or(0);
            if count > LIST_MAX {
                bail!("a list of {count} in a reply");
            }
            let mut list = Vec::new();
            for _ in 0..count {
                list.push(element(stream).await?);
            }
            Reply::List(list)
        }
        _ => bail!("a reply that is none: {}", harmless(line.as_bytes())),
    }))
}

/// Lists in lists are never sent to what is asked here.
async fn element(stream: &mut dyn Stream) -> Result<Reply> {
    let line = line(stream).await?;
    match line.split_at_checked(1) {
        Some(("$", count)) => text(stream, count.parse().context("a length")?).await,
        Some((":", number)) => Ok(Reply::Number(number.parse().context("a number")?)),
        Some(("+", word)) => Ok(Reply::Text(word.to_owned())),
        _ => bail!("a list in a reply with {}", harmless(line.as_bytes())),
    }
}

async fn line(stream: &mut dyn Stream) -> Result<String> {
    let mut line = Vec::new();
    let bound = LINE_BYTES_MAX as u64;
    (&mut *stream)
        .take(bound)
        .read_until(b'\n', &mut line)
        .await
        .context("the connection broke")?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.len() >= LINE_BYTES_MAX => bail!("a line of a reply is too long"),
        None => bail!("the server closed the connection"),
    }
}

async fn text(stream: &mut dyn Stream, count: i64) -> Result<Reply> {
    let Ok(count) = usize::try_from(count) else {
        return Ok(Reply::Nothing);
    };
    if count > TEXT_BYTES_MAX {
        bail!("a text of {count} bytes in a reply");
    }
    let mut bytes = vec![0; count + 2];
    stream
        .read_exact(&mut bytes)
        .await
        .context("the connection broke")?;
    bytes.truncate(count);
    Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replies() {
        async fn check(bytes: &str, expected: Result<Reply, &str>) {
            let (mut ours, theirs) = tokio::io::duplex(1 << 16);
            ours.write_all(bytes.as_bytes()).await.unwrap();
            drop(ours);
            let mut stream = BufStream::new(theirs);
            match (reply(&mut stream).await, expected) {
                (Ok(Ok(reply)), Ok(expected)) => assert_eq!(reply, expected, "{bytes:?}"),
                (Ok(Err(words)), Err(expected)) => assert_eq!(words, expected, "{bytes:?}"),
                (Err(error), Err(expected)) => {
                    let text = format!("{error:#}");
                    assert!(text.contains(expected), "{bytes:?}: {text}");
                }
                (found, expected) => panic!("{bytes:?}: {found:?} is not {expected:?}"),
            }
        }
        let word = |word: &str| Reply::Text(word.to_owned());
        check("+OK\r\n", Ok(word("OK"))).await;
        check(":-3\r\n", Ok(Reply::Number(-3))).await;
        check("$2\r\nab\r\n", Ok(word("ab"))).await;
        check("$-1\r\n", Ok(Reply::Nothing)).await;
        check("*0\r\n", Ok(Reply::List(vec![]))).await;
        let list = Reply::List(vec![word("dir"), word("/a\r\nb"), Reply::Number(1)]);
        check("*3\r\n$3\r\ndir\r\n$5\r\n/a\r\nb\r\n:1\r\n", Ok(list)).await;
        check("-ERR no\x1b[1m\r\n", Err("ERR no [1m")).await;
        check("", Err("closed")).await;
        check("+OK", Err("closed")).await;
        check("$5\r\nab", Err("broke")).await;
        check("$99999999999\r\n", Err("a text of 99999999999 bytes")).await;
        check("*99999999\r\n", Err("a list of 99999999")).await;
        check("*1\r\n*1\r\n:1\r\n", Err("a list in a reply")).await;
        check("!boo\r\n", Err("a reply that is none")).await;
        check(&"x".repeat(LINE_BYTES_MAX + 9), Err("too long")).await;
    }

    #[test]
    fn info() {
        let info = Info::read("# Persistence\r\nloading:0\r\naof_enabled:1\r\n\r\nodd\r\n");
        assert_eq!(info.word("loading"), "0");
        assert_eq!(info.word("none"), "");
        assert_eq!(info.number("aof_enabled").unwrap(), 1);
        assert!(info.number("none").is_err());
    }
}
