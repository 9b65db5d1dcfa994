//! What is missing for a dump, before it is taken.

use anyhow::Result;

use super::layout::Layout;
use super::session::{Session, Target};
use super::{VERSION_BACKUP, files, survives_power_failure, tool};
use crate::error::{Code, Failure};
use crate::host::dump::Around;
use crate::logic::dump::postgres::{Mode, Postgres, quoted};
use crate::logic::name::DatasetName;

/// Version of the role pg_checkpoint.
const VERSION_CHECKPOINT_ROLE: u32 = 150_000;

/// The programs that a dump and its way back need.
const PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// A user with a session, who is no superuser.
struct Rights<'a> {
    session: &'a Session,
    target: &'a Target,
    mode: Mode,
}

/// See `dump::check`.
pub async fn check(how: &Postgres, around: &Around) -> Result<String> {
    let target = &Target::new(how, None);
    let session = &Session::open(target).await?;
    rights(session, target, how.mode).await?;
    let lies = match how.mode {
        Mode::Freeze => {
            let layout = Layout::ask(session, around).await?;
            layout.must_be_one()?;
            survives_power_failure(session).await?;
            format!("its data lie in dataset {}", layout.log)
        }
        Mode::Backup => {
            let layout = Layout::ask(session, around).await?;
            let names: Vec<&str> = layout.datasets.iter().map(DatasetName::as_str).collect();
            format!("its data lie in {}", names.join(", "))
        }
        Mode::Dump => {
            for program in PROGRAMS {
                tool::find(program, session.version)?;
            }
            let to = files::directory(files::wanted(how)?, &around.datasets)?;
            format!("its dump goes to {}", to.display())
        }
    };
    Ok(format!(
        "{} answers at {}; {lies}",
        session.server, target.address
    ))
}

/// Whether we may do what the mode needs. An error says what to grant.
pub async fn rights(session: &Session, target: &Target, mode: Mode) -> Result<()> {
    let rights = Rights {
        session,
        target,
        mode,
    };
    let superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    if rights.may(superuser).await? {
        return Ok(());
    }
    match mode {
        Mode::Freeze => {
            rights.settings().await?;
            rights.checkpoint().await
        }
        Mode::Backup => {
            rights.settings().await?;
            rights.backup().await
        }
        Mode::Dump => {
            let lacks = "may not read the passwords of users, which are dumped too";
            rights.lacks(lacks, "log in as postgres or another superuser".to_owned())
        }
    }
}

impl Rights<'_> {
    async fn may(&self, sql: &str) -> Result<bool> {
        let word = self.session.word(sql, "ask PostgreSQL what we may do");
        Ok(word.await? == "t")
    }

    fn lacks(&self, what: &str, hint: String) -> Result<()> {
        let (user, mode) = (&self.target.user, self.mode.word());
        let what = format!("use PostgreSQL with mode = \"{mode}\": {user} {what}");
        Err(Failure::new(Code::Refused, what).hint(hint).into())
    }

    async fn settings(&self) -> Result<()> {
        if self
            .may("SELECT pg_has_role('pg_read_all_settings', 'usage')")
            .await?
        {
            return Ok(());
        }
        let hint = format!(
            "GRANT pg_read_all_settings TO {}",
            quoted(&self.target.user)
        );
        self.lacks("may not ask where the data lie", hint)
    }

    async fn checkpoint(&self) -> Result<()> {
        let role = self.session.version >= VERSION_CHECKPOINT_ROLE;
        let granted = "SELECT pg_has_role('pg_checkpoint', 'usage')";
        if role && self.may(granted).await? {
            return Ok(());
        }
        let hint = match role {
            true => format!("GRANT pg_checkpoint TO {}", quoted(&self.target.user)),
            false => "log in as a superuser".to_owned(),
        };
        self.lacks("may not make checkpoints", hint)
    }

    async fn backup(&self) -> Result<()> {
        let user = quoted(&self.target.user);
        let granted = "SELECT rolreplication FROM pg_roles WHERE rolname = current_user";
        if !self.may(granted).await? {
            let hint = format!("ALTER ROLE {user} REPLICATION");
            return self.lacks("may not keep the log from being recycled", hint);
        }
        let [start, stop] = match self.session.version >= VERSION_BACKUP {
            true => ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"],
            false => [
                "pg_start_backup(text, boolean, boolean)",
                "pg_stop_backup(boolean, boolean)",
            ],
        };
        let granted = format!(
            "SELECT has_function_privilege('{start}', 'execute') AND has_function_privilege('{stop}', 'execute')"
        );
        if self.may(&granted).await? {
            return Ok(());
        }
        let hint =
            format!("in database postgres: GRANT EXECUTE ON FUNCTION {start}, {stop} TO {user}");
        self.lacks("may not take backups", hint)
    }
}
