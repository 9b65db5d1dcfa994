//! The server's own programs: pg_dump, pg_dumpall, pg_restore, psql.
//!
//! Promise: a program runs as the system user of the target, never as root where there is another, with nothing in its
//! environment but what is needed; the password is there, and in no argument. It and all it forked are killed when its run is
//! dropped.
//!
//! A daemon that is killed leaves it running, until it finds that the directory it writes to is gone: every dump has its own.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::session::Target;
use crate::error::{Code, Failure};
use crate::host::command::{self, harmless};
use crate::host::dump::secret;

/// Where the programs of one major version lie on Debian, and on Red Hat and its like.
const HOMES: [&str; 2] = ["/usr/lib/postgresql", "/usr"];

/// What is kept of what a program complains of, in bytes: its end.
const SAID_BYTES_MAX: usize = 16 << 10;

/// Most that a program may answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Lines of complaints that an error shows.
const LINES_SHOWN: usize = 6;

/// What a program said.
pub struct Said {
    pub answer: Vec<u8>,
    /// Its messages, harmless, the end of them.
    pub complaints: String,
}

/// The program of a server's version, or of the next newer one that is here.
pub fn find(program: &str, version: u32) -> Result<PathBuf> {
    let major = version / 10_000;
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for home in HOMES {
        for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("pgsql-").unwrap_or(&name).parse();
            let file = entry.path().join("bin").join(program);
            if let Some(number) = number.ok().filter(|number| *number >= major) {
                found.extend(file.is_file().then_some((number, file)));
            }
        }
    }
    found.sort();
    let first = found.into_iter().next().map(|(_, file)| file);
    first.or_else(|| command::find(program)).ok_or_else(|| {
        let what = format!("find {program} of PostgreSQL {major} or newer");
        let hint = format!("install the package postgresql-client-{major}");
        Failure::new(Code::NotFound, what).hint(hint).into()
    })
}

/// Text as a value in a connection string, which programs take in the place of a database's name.
pub fn database(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('\'', "\\'");
    format!("--dbname=dbname='{escaped}'")
}

/// A run that ends with its value.
struct Running {
    child: Child,
    /// The process group that it leads.
    group: Option<Pid>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not reaped before: the number is still its own.
        if let Some(group) = self.group {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program to its end; anything but a good one is an error, with what it complained of.
pub async fn run(
    program: &Path,
    args: &[String],
    target: &Target,
    settings: &str,
    input: Option<&[u8]>,
) -> Result<Said> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut command = Command::new(program);
    command.args(args).current_dir("/").env_clear();
    command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command
        .env("HOME", "/nonexistent")
        .env("PGPASSFILE", "/nonexistent/pgpass");
    command
        .env("PGOPTIONS", settings)
        .env("PGAPPNAME", "standin");
    command.envs(target.environment());
    if let Some(secret) = &target.password {
        command.env("PGPASSWORD", secret::read(secret)?.as_str());
    }
    if let Some(user) = target.system {
        command.uid(user.uid).gid(user.gid);
    }
    let stdin = input.map_or_else(|| Ok(Stdio::null()), memory);
    command.stdin(stdin.with_context(|| format!("give {name} something to read"))?);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn();
    let child = child.with_context(|| format!("run {}", program.display()))?;
    let group = child
        .id()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let mut running = Running { child, group };
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let (answer, said) = tokio::join!(whole(stdout), end_of(stderr));
    let status = running.child.wait().await;
    running.group = None;
    let status = status.with_context(|| format!("wait for {name}"))?;
    let answer = answer.with_context(|| format!("read what {name} says"))?;
    let complaints = harmless(&said);
    if status.success() {
        return Ok(Said { answer, complaints });
    }
    Err(failed(&name, &complaints, &status.to_string()))
}

/// Something to read that a program may also open by name (/dev/stdin), which a pipe of root's does not allow.
fn memory(input: &[u8]) -> std::io::Result<Stdio> {
    let memory = rustix::fs::memfd_create("standin-input", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(input)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

fn failed(name: &str, complaints: &str, status: &str) -> anyhow::Error {
    let lines: Vec<&str> = complaints
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("; ");
    let what = match shown.as_str() {
        "" => format!("run {name} to a good end: {status}, it said nothing"),
        said => format!("run {name} to a good end: {said}"),
    };
    let has = |part: &str| complaints.contains(part);
    let (code, hint) = if has("No space left on device") || has("Disk quota exceeded") {
        (
            Code::NoSpace,
            "free space on the filesystem of the dump's `to`, or move it to a larger one",
        )
    } else if has("lock timeout") {
        (
            Code::Failed,
            "somebody holds a lock on a table (pg_locks shows who): end that, or take points at another time",
        )
    } else if has("permission denied for") || has("must be superuser") {
        (
            Code::Refused,
            "dump as a superuser, such as postgres: users and their passwords are dumped too",
        )
    } else if has("Permission denied") || has("could not create directory") {
        (
            Code::Refused,
            "the programs run as the server's system user: let it search the directories above the dump's `to` (chmod o+x)",
        )
    } else if has("password authentication failed") || has("no password supplied") {
        (
            Code::Refused,
            "mend the password in `password-file` or `password-env` of the dump",
        )
    } else if has("server version mismatch") {
        (
            Code::Refused,
            "install the postgresql-client package of the server's version",
        )
    } else {
        return anyhow!(Failure::new(Code::Failed, what));
    };
    Failure::new(code, what).hint(hint).into()
}

async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(ANSWER_BYTES_MAX + 1);
        pipe.read_to_end(&mut bytes).await?;
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(std::io::Error::other("too much"));
        }
    }
    Ok(bytes)
}

/// Reads to the end, keeps the last of it.
async fn end_of(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..bytes]);
        if kept.len() > 2 * SAID_BYTES_MAX {
            kept.drain(..kept.len() - SAID_BYTES_MAX);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::dump::Address;

    fn target() -> Target {
        Target {
            address: Address::Socket(PathBuf::from("/nowhere/.s.PGSQL.5433")),
            user: "me".to_owned(),
            password: None,
            system: None,
        }
    }

    async fn shell(script: &str, input: Option<&[u8]>) -> Result<Said> {
        let args = ["-c".to_owned(), script.to_owned()];
        run(Path::new("/bin/sh"), &args, &target(), "", input).await
    }

    #[tokio::test]
    async fn what_a_program_says() {
        let said = shell(
            "cat /dev/stdin; echo \"$PGHOST $PGPORT $PGUSER\"; echo e >&2",
            Some(b"in\n"),
        );
        let said = said.await.unwrap();
        assert_eq!(said.answer, b"in\n/nowhere 5433 me\n");
        assert_eq!(said.complaints, "e");
        let check = async |script: &str, code, part: &str| {
            let error = shell(script, None).await.err().unwrap();
            assert_eq!(Failure::code_of(&error), code, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        check("exit 3", Code::Failed, "exit status: 3").await;
        check(
            "echo 'x: No space left on device' >&2; exit 1",
            Code::NoSpace,
            "No space",
        )
        .await;
        check(
            "echo 'canceling statement due to lock timeout' >&2; exit 1",
            Code::Failed,
            "lock",
        )
        .await;
    }

    #[tokio::test]
    async fn what_is_dropped_ends_with_all_it_forked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pids");
        let script = format!(
            "sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; wait",
            file.display()
        );
        let run = tokio::spawn(async move { shell(&script, None).await.map(|_| ()) });
        let pids = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        run.abort();
        let _ = run.await;
        let gone = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !pids.split_whitespace().all(gone) {
            assert!(std::time::Instant::now() < end, "{pids} still run");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn connection_strings() {
        let check = |name, text: &str| assert_eq!(database(name), text);
        check("shop", "--dbname=dbname='shop'");
        check("host=x", "--dbname=dbname='host=x'");
        check("a'b\\", "--dbname=dbname='a\\'b\\\\'");
    }
}
