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

/// Somebody with a session, and what they may do.
struct Rights<'a> {
    session: &'a Session,
    target: &'a Target,
    mode: Mode,
    superuser: bool,
}

/// See `dump::check`.
pub async fn check(how: &Postgres, around: &Around) -> Result<String> {
    let target = &Target::new(how, None);
    let session = &Session::open(target).await?;
    let mut rights = Rights {
        session,
        target,
        mode: how.mode,
        superuser: false,
    };
    rights.superuser = rights
        .may("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        .await?;
    let lies = match how.mode {
        Mode::Freeze => {
            let layout = Layout::ask(session, around).await?;
            layout.must_be_one()?;
            survives_power_failure(session).await?;
            rights.checkpoint().await?;
            format!("its data lie in dataset {}", layout.log)
        }
        Mode::Backup => {
            let layout = Layout::ask(session, around).await?;
            rights.backup().await?;
            let names: Vec<&str> = layout.datasets.iter().map(DatasetName::as_str).collect();
            format!("its data lie in {}", names.join(", "))
        }
        Mode::Dump => {
            rights.dump()?;
            for program in PROGRAMS {
                tool::find(program, session.version)?;
            }
            let to = files::directory(how, around)?;
            format!("its dump goes to {}", to.display())
        }
    };
    Ok(format!(
        "{} answers at {}; {lies}",
        session.server, target.address
    ))
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

    async fn checkpoint(&self) -> Result<()> {
        let role = self.session.version >= VERSION_CHECKPOINT_ROLE;
        let granted = "SELECT pg_has_role('pg_checkpoint', 'usage')";
        if self.superuser || role && self.may(granted).await? {
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
        if !self.superuser && !self.may(granted).await? {
            let hint = format!("ALTER ROLE {user} REPLICATION");
            return self.lacks("may not keep the log from being recycled", hint);
        }
        let functions = match self.session.version >= VERSION_BACKUP {
            true => ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"],
            false => [
                "pg_start_backup(text, boolean, boolean)",
                "pg_stop_backup(boolean, boolean)",
            ],
        };
        let [start, stop] = functions;
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

    fn dump(&self) -> Result<()> {
        if self.superuser {
            return Ok(());
        }
        let hint = "log in as postgres or another superuser".to_owned();
        self.lacks(
            "may not read the passwords of users, which are dumped too",
            hint,
        )
    }
}
