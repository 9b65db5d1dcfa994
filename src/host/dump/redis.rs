//! Dumps of kind `redis`: its own save before the snapshots (`save`), or writers held while they are made (`freeze`).
//!
//! Promise: after `save`, the file that the server wrote holds everything it had acknowledged before `prepare` asked for it.
//! With `freeze` the append-only file holds everything that was acknowledged before `hold`. A snapshot takes what was
//! written to a file, whether it reached the disk or not: no fsync is waited for while writers are held.
//!
//! Writers that are held are let go by the server itself when the limit of the hold is over (CLIENT PAUSE has one), also where
//! this process was killed.
//!
//! An append-only file is several files, which a rewrite exchanges. They lie in one directory of one dataset, whose snapshot is
//! of one moment, and the server keeps them whole at every moment for its own sake: a rewrite that ends while writers are
//! held spoils nothing. One that is under way is nevertheless waited for before: until the first has ended there is no
//! append-only file to start from.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::{Around, within};
use crate::error::{Code, Failure};
use crate::logic::dump::redis::{Mode, Redis};
use crate::logic::dump::{Dump, Found};
use talk::{Info, Refused, Talk};

mod talk;

/// Between two looks at a save or a rewrite that is under way, at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tries at a save whose process was stopped by the server itself (FLUSHALL does that).
const SAVES_MAX: u32 = 3;

/// One dump under way.
pub struct Open {
    redis: Redis,
    around: Around,
    /// Waits that end in time say what they waited for.
    patience: Duration,
    hold: Duration,
    talk: Option<Talk>,
    held: Option<Held>,
    found: Found,
}

/// Writers that were asked to wait.
struct Held {
    /// Until then at least, when the server heard of it.
    until: Instant,
    /// As it was when writers waited.
    traces: Option<Traces>,
}

/// What a write leaves. A rewrite or a save that ends changes one of them too, but not both.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Traces {
    log_bytes: u64,
    changes: u64,
}

impl Traces {
    fn of(info: &Info) -> Result<Traces> {
        Ok(Traces {
            log_bytes: info.number("aof_current_size")?,
            changes: info.number("rdb_changes_since_last_save")?,
        })
    }

    fn written_between(&self, later: &Traces) -> bool {
        self.log_bytes != later.log_bytes && self.changes != later.changes
    }
}

impl Open {
    pub fn new(redis: &Redis, dump: &Dump, around: &Around) -> Open {
        Open {
            redis: redis.clone(),
            around: around.clone(),
            patience: dump.timeout * 9 / 10,
            hold: dump.hold,
            talk: None,
            held: None,
            found: Found::default(),
        }
    }

    pub fn holds(&self) -> bool {
        self.redis.mode == Mode::Freeze
    }

    pub async fn prepare(&mut self) -> Result<()> {
        let talk = self.talk.insert(Talk::begin(&self.redis.server).await?);
        let server = talk.info("server").await?;
        self.found.server = Some(name_of(&server));
        let files = Files::of(talk, self.redis.mode, &self.around).await?;
        let deadline = Instant::now() + self.patience;
        match self.redis.mode {
            Mode::Save => {
                let (position, bytes) = save(talk, &files.save, deadline).await?;
                self.found.position = position;
                self.found.bytes = Some(bytes);
            }
            Mode::Freeze => {
                can_hold(&server)?;
                idle(talk, deadline, "rewriting its append-only file", |info| {
                    info.word("aof_rewrite_in_progress") == "1"
                        || info.word("aof_rewrite_scheduled") == "1"
                })
                .await?;
                logs(&talk.info("persistence").await?)?;
            }
        }
        Ok(())
    }

    pub async fn hold(&mut self) -> Result<()> {
        if self.redis.mode == Mode::Save {
            return Ok(());
        }
        let Some(talk) = &mut self.talk else {
            bail!("hold writers of redis: there is no connection");
        };
        // While its fsync runs, the server may not write what it acknowledges: waited for before writers wait.
        let enough = Instant::now() + self.hold / 2;
        while talk
            .info("persistence")
            .await?
            .word("aof_pending_bio_fsync")
            != "0"
        {
            if Instant::now() >= enough {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        let ms = self.hold.as_millis().to_string();
        let held = self.held.insert(Held {
            until: Instant::now() + self.hold,
            traces: None,
        });
        talk.ask(&["CLIENT", "PAUSE", &ms, "WRITE"]).await?;
        // What was acknowledged may still be in the server's memory.
        let info = loop {
            let info = talk.info("persistence").await?;
            logs(&info)?;
            if info.number("aof_buffer_length")? == 0 {
                break info;
            }
            sleep(Duration::from_millis(1)).await;
        };
        let traces = Traces::of(&info)?;
        self.found.bytes = Some(traces.log_bytes);
        self.found.position = position(talk, Some(traces.log_bytes)).await?;
        held.traces = Some(traces);
        Ok(())
    }

    pub async fn release(&mut self) -> Result<()> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let let_go = match &mut self.talk {
            Some(talk) => let_go(talk, &held).await,
            None => bail!("let writers of redis go: there is no connection"),
        };
        let Err(error) = let_go else { return Ok(()) };
        if !error.is::<Doubt>() {
            // That conversation is over: writers would wait until the limit.
            self.talk = None;
            let mut talk = Talk::begin(&self.redis.server).await.with_context(|| {
                format!("let writers go by a new connection; the first could not {error:#}")
            })?;
            talk.ask(&["CLIENT", "UNPAUSE"]).await?;
        }
        if held.traces.is_none() {
            // The hold itself failed, and has said why.
            return Ok(());
        }
        let what = format!("keep writers of redis held until the snapshots were made: {error:#}");
        let hint = "the server's log may say what happened to it; the next point tries again";
        Err(Failure::new(Code::Failed, what).hint(hint).into())
    }

    pub async fn finish(&mut self) -> Result<Found> {
        self.talk = None;
        Ok(std::mem::take(&mut self.found))
    }
}

/// Writers may have written although they were asked to wait; they do not wait any more.
#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error("the limit of the hold was over before")]
    Late,
    #[error("something was written meanwhile: somebody else ended the pause (CLIENT UNPAUSE)")]
    Written,
}

async fn let_go(talk: &mut Talk, held: &Held) -> Result<()> {
    let late = Instant::now() >= held.until;
    let info = match &held.traces {
        Some(_) => Some(talk.info("persistence").await?),
        None => None,
    };
    talk.ask(&["CLIENT", "UNPAUSE"]).await?;
    if let (Some(info), Some(before)) = (&info, &held.traces) {
        if late {
            return Err(Doubt::Late.into());
        }
        if before.written_between(&Traces::of(info)?) {
            return Err(Doubt::Written.into());
        }
    }
    Ok(())
}

/// What `standin check` says.
pub async fn check(redis: &Redis, around: &Around) -> Result<String> {
    let mut talk = Talk::begin(&redis.server).await?;
    let server = talk.info("server").await?;
    let files = Files::of(&mut talk, redis.mode, around).await?;
    if redis.mode == Mode::Freeze {
        can_hold(&server)?;
        logs(&talk.info("persistence").await?)?;
    }
    let (name, address) = (name_of(&server), &redis.server.address);
    Ok(match redis.mode {
        Mode::Save => format!("{name} at {address} saves to {}", files.save.display()),
        Mode::Freeze => format!("{name} at {address} logs to {}", files.log.display()),
    })
}

fn name_of(server: &Info) -> String {
    match server.word("valkey_version") {
        "" => format!("Redis {}", server.word("redis_version")),
        version => format!("Valkey {version}"),
    }
}

/// CLIENT PAUSE that holds writers and nobody else, and CLIENT UNPAUSE: since 6.2. Valkey says 7.2 of itself here.
fn can_hold(server: &Info) -> Result<()> {
    let mut parts = server.word("redis_version").split('.').map(str::parse);
    let version = (parts.next(), parts.next());
    let (Some(Ok(major)), Some(Ok(minor))) = version else {
        bail!(
            "understand the version of redis: {:?}",
            server.word("redis_version")
        );
    };
    if (major, minor) >= (6_u32, 2_u32) {
        return Ok(());
    }
    let what = format!(
        "hold writers of {}: that needs 6.2 or newer",
        name_of(server)
    );
    let hint = "upgrade it, or write mode = \"save\"";
    Err(Failure::new(Code::Refused, what).hint(hint).into())
}

/// The append-only file is on, and can be written.
fn logs(persistence: &Info) -> Result<()> {
    if persistence.word("aof_enabled") != "1" {
        let what = "hold writers of redis: it writes no append-only file, so a point would hold its last save only";
        let hint =
            "switch it on (CONFIG SET appendonly yes; CONFIG REWRITE), or write mode = \"save\"";
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    if persistence.word("aof_last_write_status") != "ok" {
        let what = "hold writers of redis: it cannot write its append-only file";
        let hint = "its log says why; mostly its filesystem is full";
        return Err(Failure::new(Code::NoSpace, what).hint(hint).into());
    }
    Ok(())
}

/// Where the server writes.
struct Files {
    save: PathBuf,
    /// The directory of the append-only file; the file itself before Redis 7.
    log: PathBuf,
}

impl Files {
    /// Looks at them, and whether what a server would start from is in the role's points.
    async fn of(talk: &mut Talk, mode: Mode, around: &Around) -> Result<Files> {
        let mut words = Vec::new();
        for name in [
            "dir",
            "dbfilename",
            "appendonly",
            "appenddirname",
            "appendfilename",
        ] {
            words.push(talk.setting(name).await?.unwrap_or_default());
        }
        let dir = Path::new(&words[0]);
        if !dir.is_absolute() || !dir.is_dir() {
            let what = format!(
                "find {}, where redis says that it keeps its data",
                dir.display()
            );
            let hint = "the server may run in a container or on another machine: its directory must be seen here under the same path";
            return Err(Failure::new(Code::NotFound, what).hint(hint).into());
        }
        let files = Files {
            save: dir.join(&words[1]),
            // An empty name joined would end in a slash.
            log: match words[3].as_str() {
                "" => dir.join(&words[4]),
                name => dir.join(name),
            },
        };
        let logged = words[2] == "yes";
        if mode == Mode::Save {
            // The file itself is renamed into this directory.
            within::dataset(dir, "redis' directory", around)?;
        }
        // A server that logs starts from its log, and reads no save.
        if logged {
            within::dataset(&files.log, "redis' append-only file", around)?;
        }
        Ok(files)
    }
}

/// Waits until the server does not do something any more.
async fn idle(
    talk: &mut Talk,
    deadline: Instant,
    doing: &str,
    busy: impl Fn(&Info) -> bool,
) -> Result<Info> {
    let mut pause = Duration::from_millis(10);
    loop {
        let info = talk.info("persistence").await?;
        if !busy(&info) {
            return Ok(info);
        }
        if Instant::now() >= deadline {
            let what = format!("wait until redis is done with {doing}");
            let hint =
                "raise the dump's `timeout`, or see in the server's log why it takes so long";
            return Err(Failure::new(Code::Failed, what).hint(hint).into());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Which file it is, and of which moment; none where there is none.
fn identity(path: &Path) -> Result<Identity> {
    match std::fs::metadata(path) {
        Ok(facts) => Ok(Some((facts.ino(), facts.mtime(), facts.mtime_nsec()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

/// Has the server save, by a process that begins after this was called; where the server was then, and the size of the file.
///
/// That the save is a new one is seen at the file, not at the server's clock, which counts whole seconds.
async fn save(talk: &mut Talk, file: &Path, deadline: Instant) -> Result<(Option<String>, u64)> {
    for _ in 0..SAVES_MAX {
        let (position, before) = begin_save(talk, file, deadline).await?;
        let info = idle(talk, deadline, "saving", |info| {
            info.word("rdb_bgsave_in_progress") == "1"
        })
        .await?;
        if info.word("rdb_last_bgsave_status") != "ok" {
            let what = format!("have redis save to {}: its BGSAVE failed", file.display());
            let hint = "its log says why; mostly its filesystem is full, or memory for the fork was refused (vm.overcommit_memory = 1)";
            return Err(Failure::new(Code::Failed, what).hint(hint).into());
        }
        let after = identity(file)?;
        if after.is_some() && after != before {
            let facts = std::fs::metadata(file);
            let bytes = facts.with_context(|| format!("look at {}", file.display()))?;
            return Ok((position, bytes.len()));
        }
    }
    let what = format!(
        "find a new {} although redis says that it saved {SAVES_MAX} times",
        file.display()
    );
    let hint = "the server may run in a container or on another machine: its directory must be seen here under the same path";
    Err(Failure::new(Code::Failed, what).hint(hint).into())
}

type Identity = Option<(u64, i64, i64)>;

/// Where the server was, and which file was there, before the save that has begun now.
async fn begin_save(
    talk: &mut Talk,
    file: &Path,
    deadline: Instant,
) -> Result<(Option<String>, Identity)> {
    loop {
        // One process at a time saves, rewrites or is forked by a module. One that began before holds too little.
        idle(
            talk,
            deadline,
            "a save or rewrite that began before",
            |info| {
                let active = [
                    "rdb_bgsave_in_progress",
                    "aof_rewrite_in_progress",
                    "module_fork_in_progress",
                ];
                active.iter().any(|key| info.word(key) == "1")
            },
        )
        .await?;
        let position = position(talk, None).await?;
        let before = identity(file)?;
        match talk.ask(&["BGSAVE"]).await {
            Ok(_) => return Ok((position, before)),
            Err(error) => {
                let busy = error.downcast_ref::<Refused>().is_some_and(|refused| {
                    let words = refused.words.to_lowercase();
                    ["in progress", "child process", "rewriting"]
                        .iter()
                        .any(|word| words.contains(word))
                });
                if !busy || Instant::now() >= deadline {
                    return Err(error);
                }
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Replication id and offset; the offset counts only where there is, or was, a replica. `log_bytes`: of the append-only file.
async fn position(talk: &mut Talk, log_bytes: Option<u64>) -> Result<Option<String>> {
    let info = talk.info("replication").await?;
    let (id, offset) = (info.word("master_replid"), info.word("master_repl_offset"));
    let log = log_bytes.map_or(String::new(), |bytes| {
        format!(", append-only file at {bytes}")
    });
    Ok((!id.is_empty()).then(|| format!("{id}:{offset}{log}")))
}
