//! The operator: mostly careful, sometimes wrong.

use std::collections::BTreeSet;

use standin::logic::name::NodeName;
use standin::logic::point::Term;
use standin::logic::promotion::{Answered, Facts, Refused, Statements, Verdict, judge};
use standin::logic::role::{Event, State, Word};

use crate::world::World;

/// Does something on a node, or nothing.
pub fn acts(world: &mut World, name: &NodeName) -> Result<(), String> {
    if !world.nodes[name].up {
        return if world.dice.chance(500) {
            world.start(name)
        } else {
            Ok(())
        };
    }
    let state = world.nodes[name].disk.record.state.clone();
    let active = world
        .nodes
        .values()
        .any(|node| node.up && node.disk.record.plays());
    match state {
        // In peace only what is needed; in trouble anybody promotes, resumes and calls off at any time.
        State::Standby | State::HandedOff if !world.peace || !active => promote(world, name),
        State::Waking { .. } if !world.peace && world.dice.chance(100) => {
            let seen = &world.nodes[name].disk.record.seen;
            let outdone = world
                .nodes
                .values()
                .any(|node| node.disk.record.seen.epoch > seen.epoch);
            if world.honest && outdone {
                return Ok(());
            }
            world.happens(name, &Event::Resume).map(drop)
        }
        State::Active if !world.peace => hand_over(world, name),
        State::HandingOver { .. } if !world.peace && world.dice.chance(100) => {
            world.happens(name, &Event::Cancel).map(drop)
        }
        State::Conflict { .. } => resolve(world, name),
        _ => Ok(()),
    }
}

/// A higher term for a node.
pub fn claim(world: &mut World, name: &NodeName, holder: &NodeName) -> Term {
    let epoch = world.nodes[name].disk.record.seen.epoch + 1;
    Term {
        epoch,
        holder: holder.clone(),
        nonce: world.dice.draw(),
    }
}

fn hand_over(world: &mut World, name: &NodeName) -> Result<(), String> {
    let others: Vec<NodeName> = world
        .names
        .iter()
        .filter(|other| *other != name)
        .cloned()
        .collect();
    let to = others[world.dice.below(others.len())].clone();
    let term = claim(world, name, &to);
    world.happens(name, &Event::HandOver { term }).map(drop)
}

/// In peace the one with the lower name is kept, on whichever node the operator sits.
fn resolve(world: &mut World, name: &NodeName) -> Result<(), String> {
    if !world.peace && world.dice.chance(700) {
        return Ok(());
    }
    let State::Conflict { other, .. } = world.nodes[name].disk.record.state.clone() else {
        return Ok(());
    };
    let stays = if world.peace {
        *name < other.holder || other.holder == *name
    } else {
        world.dice.chance(500)
    };
    if !stays {
        return world.happens(name, &Event::Yield).map(drop);
    }
    // Whoever keeps one node has stopped the other first.
    let others = world
        .nodes
        .iter()
        .any(|(other, node)| other != name && (node.serving || node.disk.record.plays()));
    if world.honest && others {
        return Ok(());
    }
    let term = claim(world, name, name);
    if world.happens(name, &Event::Stay { term: term.clone() })? {
        // The new term goes on from what this node took last.
        let disk = &mut world.nodes.get_mut(name).unwrap().disk;
        disk.base = disk.newest().map(|newest| (term, newest.id.clone()));
    }
    Ok(())
}

/// Asks who can be asked, states what is needed (true or not), and promotes when that is enough.
pub fn promote(world: &mut World, name: &NodeName) -> Result<(), String> {
    if !world.peace && world.dice.chance(600) {
        return Ok(());
    }
    let record = world.nodes[name].disk.record.clone();
    let mut peers = std::collections::BTreeMap::new();
    for peer in &record.peers {
        let reachable = world.nodes[peer].up && world.reachable(name, peer);
        let disk = &world.nodes[peer].disk;
        peers.insert(
            peer.clone(),
            reachable.then(|| Answered {
                seen: disk.record.seen.clone(),
                plays: disk.record.plays() || disk.record.writable(),
                spent: disk.record.spent.clone(),
                newest: disk
                    .record
                    .accepts(&disk.record.seen)
                    .then(|| disk.newest().map(|point| point.id.clone()))
                    .flatten(),
            }),
        );
    }
    let points: Vec<_> = world.nodes[name]
        .disk
        .points
        .iter()
        .map(|point| point.id.clone())
        .collect();
    let facts = Facts {
        record: &record,
        points: &points,
        peers,
    };
    let mut said = Statements::default();
    // As an operator would: states what the refusal asks for. Whether it is true is another matter.
    for _ in 0..4 {
        match judge(&facts, &said) {
            Verdict::Promote(promotion) => {
                let term = Term {
                    epoch: promotion.epoch,
                    holder: name.clone(),
                    nonce: world.dice.draw(),
                };
                world.nodes.get_mut(name).unwrap().point = Some(promotion.point);
                return world.happens(name, &Event::Promote { term }).map(drop);
            }
            Verdict::Fetch { from, .. } => {
                let disk = &world.nodes[&from].disk;
                let (line, base) = (disk.points.clone(), disk.base.clone());
                world
                    .nodes
                    .get_mut(name)
                    .unwrap()
                    .disk
                    .follow(base.as_ref(), &line);
                return Ok(());
            }
            // Whoever says "it is stopped" has been there and pulled the plug.
            Verdict::Refused(Refused::Silent(nodes))
                if world.honest
                    && nodes
                        .iter()
                        .any(|node| world.nodes[node].up || world.nodes[node].serving) =>
            {
                return Ok(());
            }
            Verdict::Refused(Refused::Silent(nodes)) => said.stopped = BTreeSet::from_iter(nodes),
            Verdict::Refused(Refused::Loss { after, .. }) => said.loss_after = Some(after),
            Verdict::Refused(Refused::HigherTerm { by, term }) => {
                return world
                    .happens(
                        name,
                        &Event::Heard {
                            from: by,
                            word: Word {
                                term,
                                plays: false,
                                ahead: false,
                            },
                        },
                    )
                    .map(drop);
            }
            Verdict::Refused(_) => return Ok(()),
        }
    }
    Ok(())
}
