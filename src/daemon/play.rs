//! Placeholder until services move with the role.
use super::node::{Node, RoleRun};
use anyhow::Result;
use std::sync::Arc;
pub async fn stop(_: &Arc<Node>, _: &Arc<RoleRun>, _urgent: bool) -> Result<()> {
    Ok(())
}
pub async fn prove(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<()> {
    Ok(())
}
pub async fn start(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<()> {
    Ok(())
}
pub async fn address(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<()> {
    Ok(())
}
pub async fn runs(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<bool> {
    Ok(true)
}
pub async fn standing_in(_: &Arc<Node>, _: &Arc<RoleRun>) -> Result<()> {
    Ok(())
}
pub fn preview_start(_: &RoleRun) -> Vec<super::api::Step> {
    Vec::new()
}
pub fn preview_stop(_: &RoleRun) -> Vec<super::api::Step> {
    Vec::new()
}
pub async fn problems(_: &Arc<Node>, _: &Arc<RoleRun>) -> Vec<String> {
    Vec::new()
}
