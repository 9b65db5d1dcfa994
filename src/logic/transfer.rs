//! Words about one dataset's transfer that both the filesystem and the protocol use.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::name::DatasetName;
use super::point::PointId;

/// What identifies the bytes of one dataset's stream. Equal identities on one kernel give equal bytes; the prefix hash
/// proves it. Recorded with the transfer by the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamIdentity {
    /// Identity of the snapshot (see `DatasetFacts::identity`).
    pub snapshot: Uuid,
    /// Identity of the base's snapshot; none for a full stream.
    pub base: Option<Uuid>,
    /// Version of the send stream protocol: 1 or 2 (kernel: fs/btrfs/send.h).
    pub version: u32,
}

/// A half-received dataset in staging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    pub point: PointId,
    pub dataset: DatasetName,
    /// Stream bytes in the newest checkpoint; none when the dataset is complete and waits for the others.
    pub offset: Option<u64>,
}
