//! What every verb begins with: the stores of a role and the snapshots there are, looked up anew wherever they can have changed.
//!
//! Between calls only mounts that are in use are remembered, and the last list for as long as the kernel tells that it still holds
//! (`mark`): so what an admin renames or destroys meanwhile is seen, and a restart is like a first start. It deliberately does not
//! know what any verb does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::family::{Family, Snapshot};
use super::mark::Listed;
use super::show::Shown;
use super::store::{self, Store};
use super::take::pool;
use crate::error::{Code, Failure};
use crate::fs::btrfs::uses::{Use, Used, Uses};
use crate::fs::{FsError, Limits, Result};
use crate::logic::name::{DatasetName, RoleName};

/// Where a dataset of a role lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `tank/www`
    pub zfs: String,
    /// Where it is mounted while it is live.
    pub path: PathBuf,
    /// The file that holds its key, where it is encrypted and the dataset itself does not say.
    pub key: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Core {
    pub role: RoleName,
    pub places: BTreeMap<DatasetName, Place>,
    pub limits: Limits,
    pub uses: Uses,
    /// By parents.
    stores: Mutex<BTreeMap<String, Arc<Store>>>,
    /// Snapshots that somebody reads now, by guid.
    pub read: Mutex<BTreeMap<u64, Weak<Shown>>>,
    /// Held by whoever moves snapshots or datasets about.
    turn: Mutex<()>,
    pub reported: Mutex<BTreeSet<String>>,
    listed: Listed<Families>,
}

type Families = Arc<BTreeMap<DatasetName, Family>>;

/// The datasets of a role that have one store.
#[derive(Debug)]
pub struct Part {
    pub store: Arc<Store>,
    pub datasets: Vec<DatasetName>,
}

/// What there is now.
#[derive(Debug)]
pub struct Scene<'a> {
    pub core: &'a Core,
    pub parts: Vec<Part>,
    families: Families,
}

impl Core {
    pub fn new(role: RoleName, places: BTreeMap<DatasetName, Place>, limits: Limits) -> Core {
        Core {
            role,
            places,
            limits,
            uses: Uses::default(),
            stores: Mutex::default(),
            read: Mutex::default(),
            turn: Mutex::default(),
            reported: Mutex::default(),
            listed: Listed::default(),
        }
    }

    pub fn place(&self, dataset: &DatasetName) -> Result<&Place> {
        self.places.get(dataset).ok_or_else(|| {
            let what = format!("role {} has no dataset {dataset} on this node", self.role);
            Failure::new(Code::NotFound, what)
                .hint("name it in the role's datasets in the configuration of this node")
                .into()
        })
    }

    /// One at a time; a panic elsewhere leaves files that the next one reads anew.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the stores only.
    pub fn parts(&self) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        for (dataset, place) in &self.places {
            let store = self.store(&place.zfs)?;
            match parts.iter_mut().find(|part| part.store.name == store.name) {
                Some(part) => part.datasets.push(dataset.clone()),
                None => parts.push(Part {
                    store,
                    datasets: vec![dataset.clone()],
                }),
            }
        }
        Ok(parts)
    }

    /// Looks at everything.
    pub fn look(&self) -> Result<Scene<'_>> {
        let parts = self.parts()?;
        let pools: Vec<&str> = self.places.values().map(|place| pool(&place.zfs)).collect();
        let families = self
            .listed
            .or_list(&pools, || Ok(Arc::new(self.list(&parts)?)))?;
        Ok(Scene {
            core: self,
            parts,
            families,
        })
    }

    fn list(&self, parts: &[Part]) -> Result<BTreeMap<DatasetName, Family>> {
        let mut rooms = Vec::new();
        for part in parts {
            for dataset in &part.datasets {
                let room = part.store.room(&self.role, dataset);
                rooms.push((dataset, self.place(dataset)?.zfs.as_str(), room));
            }
        }
        let of: Vec<(&str, &str)> = rooms
            .iter()
            .map(|(_, live, room)| (*live, room.as_str()))
            .collect();
        let looked = Family::look(&of)?;
        let names = rooms.iter().map(|(dataset, ..)| (*dataset).clone());
        Ok(names.zip(looked).collect())
    }

    /// That of the data beside a live dataset.
    pub fn store(&self, live: &str) -> Result<Arc<Store>> {
        let parent = store::parent(live).ok_or_else(|| {
            let what = format!("{live} is a whole pool");
            Failure::new(Code::Usage, what).hint(format!(
                "make the data a dataset of their own, such as {live}/data"
            ))
        })?;
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(parent) {
            return Ok(store.clone());
        }
        let store = Arc::new(Store::open(parent)?);
        stores.insert(parent.to_owned(), store.clone());
        Ok(store)
    }

    /// Has a point alone, by its name.
    pub fn alone(&self, name: &str) -> Result<Use> {
        let used = Used::Point(self.role.clone(), name.to_owned());
        let busy = || FsError::Busy(format!("point {name} of {}", self.role));
        Ok(self.uses.alone(used).ok_or_else(busy)?)
    }

    /// Keeps a point from being destroyed or moved by this process.
    pub fn share(&self, name: &str) -> Result<Use> {
        let used = Used::Point(self.role.clone(), name.to_owned());
        let busy = || {
            FsError::Busy(format!(
                "point {name} of {}, which is being moved or destroyed,",
                self.role
            ))
        };
        Ok(self.uses.share(used).ok_or_else(busy)?)
    }
}

impl Scene<'_> {
    pub fn family(&self, dataset: &DatasetName) -> Result<&Family> {
        self.families
            .get(dataset)
            .ok_or_else(|| FsError::Missing(format!("dataset {dataset}")).into())
    }

    pub fn part(&self, dataset: &DatasetName) -> Result<&Part> {
        let part = self
            .parts
            .iter()
            .find(|part| part.datasets.contains(dataset));
        part.ok_or_else(|| FsError::Missing(format!("dataset {dataset}")).into())
    }

    /// A snapshot by what a point recorded of it.
    pub fn snapshot(&self, dataset: &DatasetName, identity: uuid::Uuid) -> Result<&Snapshot> {
        let found = self.family(dataset)?.by_identity(identity);
        let missing = || FsError::Missing(format!("the snapshot {identity} of {dataset}"));
        Ok(found.ok_or_else(missing)?)
    }
}
