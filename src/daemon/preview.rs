//! What a move would do with services and addresses on this node, and what stands against it. Changes nothing.

use std::sync::Arc;

use anyhow::Result;

use super::api::{Level, Step};
use super::cycle::planned;
use super::node::{RoleRun, blocking};
use super::play;
use crate::logic::play::{Moment, Play};
use crate::logic::point::PointId;

/// Coming up.
pub fn starts(run: &RoleRun) -> Vec<Step> {
    let play = &run.role.play;
    let services = play.services.iter().map(|service| {
        let name = service.name();
        planned("start", format!("start {name}"))
    });
    let addresses = play
        .addresses
        .iter()
        .map(|address| planned("address", format!("bring up address {address}")));
    let mut steps = hook(play, Moment::BeforeStart);
    steps.extend(services);
    steps.extend(hook(play, Moment::AfterStart));
    steps.extend(addresses);
    steps
}

/// Going down.
pub fn stops(run: &RoleRun) -> Vec<Step> {
    let play = &run.role.play;
    let mut steps = hook(play, Moment::BeforeStop);
    if !play.ports.is_empty() {
        let ports: Vec<String> = play.ports.iter().map(ToString::to_string).collect();
        let text = format!("close {}, established connections too", ports.join(", "));
        steps.push(planned("close", text));
    }
    let addresses = play.addresses.iter().rev();
    steps.extend(
        addresses.map(|address| planned("address", format!("take down address {address}"))),
    );
    let services = play.services.iter().rev();
    steps.extend(services.map(|service| planned("stop", format!("stop {}", service.name()))));
    steps.extend(hook(play, Moment::AfterStop));
    steps
}

fn hook(play: &Play, moment: Moment) -> Vec<Step> {
    let called = play.hooks.get(&moment);
    let text = format!("call the hook {}", moment.word());
    called.map(|_| planned("hook", text)).into_iter().collect()
}

/// Refuses where the data of this point could not be opened here: before anything is touched for it.
pub async fn expect_openable(run: &Arc<RoleRun>, point: PointId) -> Result<()> {
    let fs = run.fs.clone();
    blocking(move || fs.expect_openable(&point)).await
}

/// What `check` would call a problem.
pub async fn problems(run: &Arc<RoleRun>) -> Vec<String> {
    let mut findings = Vec::new();
    play::check(run, false, &mut findings).await;
    let problems = findings
        .into_iter()
        .filter(|finding| finding.level == Level::Problem);
    problems.map(|finding| finding.text).collect()
}
