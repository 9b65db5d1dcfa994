//! Placeholder.
use super::node::{Node, RoleRun};
use crate::logic::fork::Why;
use crate::logic::point::PointId;
use anyhow::Result;
use std::sync::Arc;
pub async fn sort_out(
    _: &Arc<Node>,
    _: &Arc<RoleRun>,
    _: Vec<PointId>,
    _: Why,
    _: Option<PointId>,
) -> Result<Option<()>> {
    Ok(None)
}
