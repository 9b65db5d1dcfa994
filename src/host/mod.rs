//! The rest of this machine: what is mounted, and (to come) child processes, services, the state database.
//!
//! Knows neither the filesystems' trait nor peers nor the config: what it needs comes in as arguments.

pub mod mounts;
