//! A Redis server on a directory, and a client of a few lines that is not the program's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::super::cluster::wait;
use super::{Running, as_user};

pub struct Redis {
    pub process: Running,
    pub socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts it on `data`, which becomes its user's; returns when it has loaded what is there.
    #[track_caller]
    pub fn start(data: &Path, options: &[&str]) -> Redis {
        let dir = tempfile::Builder::new()
            .prefix("standin-")
            .tempdir()
            .unwrap();
        super::super::fixture::run(
            "chown",
            [
                "redis:redis".as_ref(),
                dir.path().as_os_str(),
                data.as_os_str(),
            ],
        );
        let socket = dir.path().join("socket");
        let log = dir.path().join("log");
        let out = File::create(&log).unwrap();
        let child = as_user("redis", "redis-server")
            .args(["--port", "0", "--daemonize", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(data)
            .args(options)
            .current_dir("/")
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let redis = Redis {
            process: Running(child),
            socket,
            _dir: dir,
        };
        let answers = || {
            let mut client = Client::connect(&redis.socket).ok()?;
            client.ask(&["PING"]).ok()?.first().cloned()
        };
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        // With a password it answers too: that it wants one.
        let up = wait(|| answers().is_some_and(|word| word == "PONG" || word.contains("NOAUTH")));
        assert!(up, "redis does not answer: {}", said());
        redis
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }
}

pub struct Client(BufReader<UnixStream>);

impl Client {
    pub fn connect(socket: &Path) -> std::io::Result<Client> {
        Ok(Client(BufReader::new(UnixStream::connect(socket)?)))
    }

    /// The words of the reply, lists laid flat. An error of the server is a word that begins with "-".
    pub fn ask(&mut self, words: &[&str]) -> std::io::Result<Vec<String>> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(text.as_bytes())?;
        let mut found = Vec::new();
        self.reply(&mut found)?;
        Ok(found)
    }

    /// As `ask`; panics where the server refuses.
    #[track_caller]
    pub fn does(&mut self, words: &[&str]) -> Vec<String> {
        let said = self.ask(words).unwrap();
        let refused = said
            .iter()
            .find(|word| word.starts_with('-') && word.len() > 6);
        assert!(refused.is_none(), "{words:?}: {said:?}");
        said
    }

    fn reply(&mut self, found: &mut Vec<String>) -> std::io::Result<()> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at(1);
        match kind {
            "$" if rest != "-1" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                found.push(String::from_utf8(bytes).unwrap());
            }
            "*" => {
                for _ in 0..rest.parse::<i64>().unwrap() {
                    self.reply(found)?;
                }
            }
            "-" => found.push(line.to_owned()),
            _ => found.push(rest.to_owned()),
        }
        Ok(())
    }
}
