//! What may be wrong with a filesystem, as far as somebody does something else because of it.

use std::path::PathBuf;

use crate::logic::name::DatasetName;
use crate::logic::shortage::Shortage;

/// The failures a caller tells apart; found in a chain by `downcast_ref`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// A send or another holder still uses it; try again later.
    #[error("{0} is in use")]
    Busy(String),
    #[error("{path}: not enough space")]
    NoSpace { path: PathBuf, shortage: Shortage },
    /// The base of an incremental stream is missing or was changed here.
    #[error("base of {dataset} is not usable: {why}")]
    BadBase { dataset: DatasetName, why: String },
    /// The stream breaks the rules; nothing of it is kept beyond the last checkpoint.
    #[error("stream refused at byte {offset}, command {command}: {why}")]
    BadStream {
        offset: u64,
        command: String,
        why: String,
    },
    /// The disk, or its checksums, failed under the data of a point. `file` is its path in the dataset, where it was found.
    #[error("{dataset} cannot be read{}", match file { Some(file) => format!(": the file {file:?} fails"), None => String::new() })]
    Unreadable {
        dataset: DatasetName,
        file: Option<String>,
    },
    #[error("{0} does not exist")]
    Missing(String),
    /// The process that applies the stream ended or went silent; what the last checkpoint holds is kept.
    #[error("the applier failed: {0}")]
    ApplierEnded(String),
    /// A writable copy cannot share its blocks across filesystems; the caller may copy the files instead.
    #[error("{0} is on another filesystem")]
    OtherFilesystem(PathBuf),
}
