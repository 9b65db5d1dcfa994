//! Placeholder.
use super::node::{Node, RoleRun};
use anyhow::Result;
use std::sync::Arc;
pub async fn refresh(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<()> {
    Ok(())
}
