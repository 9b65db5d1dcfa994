//! A filesystem with a dataset for a database, and dumps of it as the config would ask for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use standin::error::{Code, Failure};
use standin::host::command::Surroundings;
use standin::host::dump::{Around, Open};
use standin::logic::dump::mysql::{Mode, Mysql};
use standin::logic::dump::{Address, Dump, How, Load, Policy, Server};
use standin::logic::name::{DatasetName, NodeName, RoleName};

use crate::support::fixture::{Loop, run};
use crate::support::servers::mariadb::Maria;

/// Longest that anything here may take.
const LONG: Duration = Duration::from_secs(60);

pub struct Site {
    disk: Loop,
    outside: tempfile::TempDir,
    mysql: std::sync::Mutex<Mysql>,
    second: RefCell<bool>,
}

impl Site {
    /// With one dataset, `db`, on a filesystem of `size` bytes.
    pub fn new(size: u64) -> Site {
        let disk = Loop::new(size);
        let outside = tempfile::tempdir().unwrap();
        for dir in [disk.path(), outside.path(), disk.path().parent().unwrap()] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let site = Site {
            mysql: std::sync::Mutex::new(Mysql {
                mode: Mode::Freeze,
                server: Server {
                    address: Address::Socket("/nowhere".into()),
                    user: None,
                    password: None,
                },
                databases: Vec::new(),
                to: Some(disk.join("db/dump.sql")),
            }),
            disk,
            outside,
            second: RefCell::new(false),
        };
        site.subvolume(&site.dataset());
        site
    }

    fn subvolume(&self, path: &Path) {
        run(
            "btrfs",
            ["-q", "subvolume", "create", path.to_str().unwrap()],
        );
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    pub fn dataset(&self) -> PathBuf {
        self.disk.join("db")
    }

    pub fn datadir(&self) -> PathBuf {
        self.disk.join("db/data")
    }

    /// In no dataset.
    pub fn elsewhere(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    /// A second dataset of the role, `logs`.
    pub fn second_dataset(&self) {
        self.subvolume(&self.second());
        *self.second.borrow_mut() = true;
    }

    pub fn second(&self) -> PathBuf {
        self.disk.join("logs")
    }

    pub fn file(&self) -> PathBuf {
        self.mysql.lock().unwrap().to.clone().unwrap()
    }

    pub fn name_server(&self, server: &Maria) {
        self.set_server(server.server());
    }

    pub fn set_server(&self, server: Server) {
        self.mysql.lock().unwrap().server = server;
    }

    pub fn ask_databases(&self, names: &[&str]) {
        self.mysql.lock().unwrap().databases =
            names.iter().map(|name| (*name).to_owned()).collect();
    }

    pub fn write_to(&self, path: &Path) {
        self.mysql.lock().unwrap().to = Some(path.to_owned());
    }

    /// A file that only its owner reads.
    pub fn password(&self, name: &str, text: &str) -> PathBuf {
        let path = self.elsewhere(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn dump(&self, mode: Mode) -> Dump {
        Dump {
            name: RoleName::parse("database").unwrap(),
            policy: Policy::Required,
            timeout: LONG,
            hold: Duration::from_secs(10),
            load: Load::Empty,
            drill: None,
            how: How::Mysql(Mysql {
                mode,
                ..self.mysql.lock().unwrap().clone()
            }),
        }
    }

    pub fn around(&self) -> Around {
        let name = |name: &str| DatasetName::parse(name).unwrap();
        let mut datasets = BTreeMap::from([(name("db"), self.dataset())]);
        if *self.second.borrow() {
            datasets.insert(name("logs"), self.second());
        }
        Around {
            surroundings: Surroundings {
                role: RoleName::parse("app").unwrap(),
                node: NodeName::parse("alder").unwrap(),
                term: Some(1),
                output: self.elsewhere("output"),
            },
            copies: datasets.clone(),
            datasets,
        }
    }

    /// As a drill would: the dataset's files are read from a point.
    pub fn around_copy(&self, point: &Path) -> Around {
        let mut around = self.around();
        for path in around.copies.values_mut() {
            *path = point.to_owned();
        }
        around
    }

    pub fn open(&self, mode: Mode) -> Open {
        Open::new(&self.dump(mode), &self.around())
    }

    /// A freeze with a limit for the hold.
    pub fn open_within(&self, hold: Duration) -> Open {
        let dump = Dump {
            hold,
            ..self.dump(Mode::Freeze)
        };
        Open::new(&dump, &self.around())
    }

    /// Read-only, of the dataset.
    pub fn snapshot(&self, name: &str) -> PathBuf {
        let point = self.disk.join(name);
        let (from, to) = (self.dataset(), point.clone());
        run(
            "btrfs",
            [
                "-q".as_ref(),
                "subvolume".as_ref(),
                "snapshot".as_ref(),
                "-r".as_ref(),
                from.as_os_str(),
                to.as_os_str(),
            ],
        );
        point
    }

    /// A writable copy of a point.
    pub fn copy(&self, point: &Path) -> PathBuf {
        let copy = point.with_extension("copy");
        run(
            "btrfs",
            [
                "-q".as_ref(),
                "subvolume".as_ref(),
                "snapshot".as_ref(),
                point.as_os_str(),
                copy.as_os_str(),
            ],
        );
        copy
    }

    pub fn forget(&self, copy: &Path) {
        run(
            "btrfs",
            [
                "-q".as_ref(),
                "subvolume".as_ref(),
                "delete".as_ref(),
                copy.as_os_str(),
            ],
        );
    }

    /// A write is committed, soon.
    pub async fn writes_go_on(&self, server: &Maria) {
        let mut conn = server.connect().await;
        let write = conn.query_drop("INSERT INTO app.i (a) VALUES (1)");
        let written = tokio::time::timeout(Duration::from_secs(20), write).await;
        written.expect("writers are held").unwrap();
    }
}

/// Asks until there is an answer.
pub async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The code of an error, and its words with its hint.
pub fn failed(error: &anyhow::Error) -> (Code, String) {
    let hint = Failure::of(error).and_then(|failure| failure.hint.clone());
    let hint = hint.unwrap_or_default();
    (Failure::code_of(error), format!("{error:#}\nhint: {hint}"))
}

/// All of these are in the text.
pub fn names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
