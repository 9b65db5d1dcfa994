//! Each plan of an operator with one crash, at every place where there can be one: nothing is left to chance but the order of
//! the messages.

use standin::logic::role::{Event, State};

use crate::operator;
use crate::world::{Crash, Moment, World};

/// Steps a plan may take until everybody agrees again.
const PATIENCE: usize = 5000;

type Plan = fn(&mut World) -> Result<(), String>;

/// Runs every plan with every crash; what failed.
pub fn all() -> Result<u64, String> {
    let plans: [(&str, Plan); 4] = [
        ("promote, the other is gone", promote),
        ("hand over", hand_over),
        ("hand over and fail back", fail_back),
        ("promote, and the other returns with what it wrote", fork),
    ];
    let mut runs = 0;
    for (words, plan) in plans {
        for moment in [
            Moment::BeforeRecord,
            Moment::AfterRecord,
            Moment::AfterEffect,
        ] {
            for machine in [false, true] {
                let mut at = 1;
                loop {
                    let crash = Crash {
                        at,
                        moment,
                        machine,
                    };
                    let mut world = World::quiet(at as u64, crash);
                    let outcome = plan(&mut world).and_then(|()| settle(&mut world));
                    outcome.map_err(|why| format!("{words}, {crash:?}: {why}"))?;
                    runs += 1;
                    // There are no more such places.
                    if !world.crashed {
                        break;
                    }
                    at += 1;
                }
            }
        }
    }
    Ok(runs)
}

fn settle(world: &mut World) -> Result<(), String> {
    world.heal();
    for _ in 0..PATIENCE {
        if world.settled() {
            return world.agreed();
        }
        world.event()?;
    }
    Err(format!("they do not settle: {}", world.states()))
}

fn until(world: &mut World, mut done: impl FnMut(&World) -> bool) -> Result<(), String> {
    for _ in 0..PATIENCE {
        if done(world) || world.crashed {
            return Ok(());
        }
        world.event()?;
    }
    Err(format!("nothing comes of it: {}", world.states()))
}

fn active(world: &World, at: usize) -> bool {
    world.nodes[&world.names[at]].disk.record.state == State::Active
}

fn promote(world: &mut World) -> Result<(), String> {
    let (alder, birch) = (world.names[0].clone(), world.names[1].clone());
    world.written(&alder, 2);
    until(world, |world| world.settled())?;
    let node = world.nodes.get_mut(&alder).unwrap();
    (node.up, node.serving) = (false, false);
    operator::promote(world, &birch)?;
    until(world, |world| active(world, 1))
}

fn hand_over(world: &mut World) -> Result<(), String> {
    let (alder, birch) = (world.names[0].clone(), world.names[1].clone());
    world.written(&alder, 2);
    let term = operator::claim(world, &alder, &birch);
    world.happens(&alder, &Event::HandOver { term })?;
    until(world, |world| {
        active(world, 1) && !world.nodes[&world.names[0]].disk.record.plays()
    })
}

fn fail_back(world: &mut World) -> Result<(), String> {
    hand_over(world)?;
    let (alder, birch) = (world.names[0].clone(), world.names[1].clone());
    world.written(&birch, 2);
    let term = operator::claim(world, &birch, &alder);
    world.happens(&birch, &Event::HandOver { term })?;
    until(world, |world| {
        active(world, 0) && !world.nodes[&world.names[1]].disk.record.plays()
    })
}

fn fork(world: &mut World) -> Result<(), String> {
    let alder = world.names[0].clone();
    promote(world)?;
    // It had written more than it could send.
    let disk = &mut world.nodes.get_mut(&alder).unwrap().disk;
    if let Some((_, content)) = &mut disk.live {
        content.push(1000);
        world.promised.insert(1000);
    }
    world.start(&alder)?;
    until(world, |world| {
        world.nodes[&alder].disk.record.state == State::Standby
    })
}
