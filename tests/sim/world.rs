//! Nodes, the messages between them, time as a queue of events, and the properties.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use standin::logic::name::NodeName;
use standin::logic::point::{PointId, Term};
use standin::logic::role::{Action, Descent, Event, Record, State, Work, step};

use crate::dice::Dice;
use crate::disk::{Disk, Point};
use crate::node::{self, Message, Node};
use crate::operator;

/// Events in which everything goes wrong, and at most those in which everything must come right.
const TROUBLE: usize = 300;
const PEACE: usize = 3000;

/// One crash at a chosen place.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// Counts such places, from 1.
    pub at: usize,
    pub moment: Moment,
    /// The whole machine, services included.
    pub machine: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It was decided, and is not on disk.
    BeforeRecord,
    /// It is on disk, and nothing of it was done.
    AfterRecord,
    /// Work was done, and nobody knows.
    AfterEffect,
}

pub struct World {
    pub dice: Dice,
    pub names: Vec<NodeName>,
    pub nodes: BTreeMap<NodeName, Node>,
    /// Older states of disks, for a rollback.
    images: BTreeMap<NodeName, Disk>,
    /// From, to, what.
    mail: Vec<(NodeName, NodeName, Message)>,
    /// Directions in which nothing gets through.
    cuts: BTreeSet<(NodeName, NodeName)>,
    writes: u64,
    /// Writes that reached a live copy and must be somewhere.
    pub promised: BTreeSet<u64>,
    /// Terms ever held, and by whom.
    holders: HashMap<Term, NodeName>,
    pub peace: bool,
    trace: bool,
    crash: Option<Crash>,
    places: usize,
    pub crashed: bool,
    /// The operator does nothing of their own.
    pub unattended: bool,
    /// What operators state is true, and what was sent to a node that died does not reach it when it is back. Then no two
    /// nodes may serve, ever.
    pub honest: bool,
}

pub fn run(seed: u64, trace: bool) -> Result<(), String> {
    let mut world = World::new(seed, trace);
    for _ in 0..TROUBLE {
        world.event()?;
    }
    world.heal();
    for _ in 0..PEACE {
        world.event()?;
        if world.settled() {
            return world.agreed();
        }
    }
    if trace {
        for (name, node) in &world.nodes {
            let (live, points) = (&node.disk.live, &node.disk.points);
            println!(
                "{name}: live {live:?}\n  points {points:?}\n  forks {:?}",
                node.disk.forks
            );
        }
    }
    Err(format!("they do not settle: {}", world.states()))
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let names: Vec<NodeName> = ["alder", "birch", "cedar"][..2 + dice.below(2)]
            .iter()
            .map(|name| NodeName::parse(name).unwrap())
            .collect();
        let honest = dice.chance(500);
        let first = Term {
            epoch: 1,
            holder: names[0].clone(),
            nonce: 0,
        };
        let mut nodes = BTreeMap::new();
        for name in &names {
            let peers = names
                .iter()
                .filter(|other| *other != name)
                .cloned()
                .collect();
            let mut record = Record::standby(name.clone(), peers, first.clone());
            let home = *name == names[0];
            if home {
                record.held = Some(first.clone());
                record.state = State::Active;
            }
            let live = home.then(|| (first.clone(), Vec::new()));
            let disk = Disk {
                record,
                live,
                // Every node begins with the same empty point.
                points: vec![Point {
                    id: PointId {
                        term: first.clone(),
                        sequence: 1,
                    },
                    content: Vec::new(),
                }],
                forks: Vec::new(),
                base: None,
            };
            let node = Node {
                disk,
                up: true,
                serving: home,
                work: None,
                point: None,
            };
            nodes.insert(name.clone(), node);
        }
        World {
            dice,
            names: names.clone(),
            nodes,
            images: BTreeMap::new(),
            mail: Vec::new(),
            cuts: BTreeSet::new(),
            writes: 0,
            promised: BTreeSet::new(),
            holders: HashMap::from([(first, names[0].clone())]),
            peace: false,
            trace,
            crash: None,
            places: 0,
            crashed: false,
            unattended: false,
            honest,
        }
    }

    /// Two nodes, no trouble but this crash.
    pub fn quiet(seed: u64, crash: Crash) -> World {
        let mut world = World::new(seed, false);
        if world.names.len() > 2 {
            // Seeds decide how many nodes there are; two are enough here.
            return World::quiet(seed + 1_000_003, crash);
        }
        world.peace = true;
        world.unattended = true;
        world.crash = Some(crash);
        world
    }

    /// Whether the chosen crash is here, and if so makes it.
    fn crashes(&mut self, name: &NodeName, moment: Moment) -> bool {
        let Some(crash) = self.crash.filter(|crash| crash.moment == moment) else {
            return false;
        };
        self.places += 1;
        if self.places != crash.at {
            return false;
        }
        self.crashed = true;
        let node = self.nodes.get_mut(name).unwrap();
        node.die(crash.machine);
        true
    }

    /// Writes reach the live copy.
    pub fn written(&mut self, name: &NodeName, count: usize) {
        let peace = std::mem::replace(&mut self.peace, false);
        for _ in 0..count {
            self.write(name);
        }
        self.peace = peace;
    }

    /// One thing happens, whatever the dice say.
    pub fn event(&mut self) -> Result<(), String> {
        let name = self.names[self.dice.below(self.names.len())].clone();
        match self.dice.below(100) {
            0..30 => self.deliver()?,
            30..45 => self.write(&name),
            45..60 => self.work(&name)?,
            60..70 => self.replicate(&name),
            70..76 => drop(self.happens(&name, &Event::Retry)?),
            76..82 => self.greet(&name),
            82..90 if self.unattended => {}
            82..90 => operator::acts(self, &name)?,
            _ if self.peace => {}
            90..97 => self.crash(&name)?,
            97..99 => self.cut(&name),
            _ if self.honest => {}
            _ => self.image(&name),
        }
        self.check()
    }

    /// The step function, with a record that may be lost before it is written and actions that may be lost after.
    pub fn happens(&mut self, name: &NodeName, event: &Event) -> Result<bool, String> {
        let node = &self.nodes[name];
        if !node.up {
            return Ok(false);
        }
        let before = node.disk.record.clone();
        let step = step(&before, event);
        if self.trace {
            println!(
                "{name}: {} + {event:?} -> {} ({})",
                before.state, step.record.state, step.why
            );
        }
        if !self.peace && self.dice.chance(10) {
            return self.crash(name).map(|()| false);
        }
        if self.crashes(name, Moment::BeforeRecord) {
            return Ok(false);
        }
        if let (Some(held), true) = (&step.record.held, step.record.held != before.held) {
            let other = self.holders.insert(held.clone(), name.clone());
            if other.is_some_and(|other| other != *name) {
                return Err(format!("the term {held} is held by two nodes"));
            }
        }
        if step.record.state == State::HandedOff && before.state != State::HandedOff {
            node::released(&self.nodes[name], &self.nodes[&step.record.seen.holder])?;
        }
        let node = self.nodes.get_mut(name).unwrap();
        node.disk.record = step.record;
        if self.crashes(name, Moment::AfterRecord) {
            return Ok(false);
        }
        for action in step.actions {
            if !self.peace && self.dice.chance(10) {
                return self.crash(name).map(|()| false);
            }
            self.act(name, action);
        }
        Ok(!step.refused)
    }

    fn act(&mut self, name: &NodeName, action: Action) {
        let messages = self.nodes.get_mut(name).unwrap().act(action);
        for (peer, message) in messages {
            self.post(name, &peer, message);
        }
    }

    fn post(&mut self, from: &NodeName, to: &NodeName, message: Message) {
        // A connection to a node that is down carries nothing, not even later.
        if self.honest && !self.nodes[to].up {
            return;
        }
        if self.cuts.contains(&(from.clone(), to.clone())) || (!self.peace && self.dice.chance(50))
        {
            return;
        }
        if !self.peace && self.dice.chance(30) {
            self.mail.push((from.clone(), to.clone(), message.clone()));
        }
        self.mail.push((from.clone(), to.clone(), message));
    }

    /// Any message that is under way arrives, not the oldest.
    fn deliver(&mut self) -> Result<(), String> {
        if self.mail.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(self.mail.len());
        let (from, to, message) = self.mail.swap_remove(at);
        if !self.nodes[&to].up {
            return Ok(());
        }
        if matches!(message, Message::Grant { .. }) {
            self.nodes.get_mut(&to).unwrap().point = None;
        }
        let event = self.nodes[&to].event(&from, &message);
        self.happens(&to, &event)?;
        let node = self.nodes.get_mut(&to).unwrap();
        if node.up {
            node.take_in(&message);
            if matches!(message, Message::Word { answer: false, .. }) {
                self.act(&to, Action::Tell(from));
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &NodeName) {
        let node = self.nodes.get_mut(name).unwrap();
        if let (true, Some((_, content))) = (node.serving && !self.peace, &mut node.disk.live) {
            self.writes += 1;
            content.push(self.writes);
            self.promised.insert(self.writes);
        }
    }

    fn replicate(&mut self, name: &NodeName) {
        let node = self.nodes.get_mut(name).unwrap();
        if !node.up || !node.disk.record.takes_points() {
            return;
        }
        node.disk.take_point();
        self.send_line(name);
    }

    fn send_line(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        let (peers, line) = (node.disk.record.peers.clone(), node.line());
        for peer in &peers {
            self.post(name, peer, line.clone());
        }
    }

    fn greet(&mut self, name: &NodeName) {
        if self.nodes[name].up {
            self.act(name, Action::TellAll);
        }
    }

    /// Work ends: its effect, then the word of it, between which the daemon may die.
    fn work(&mut self, name: &NodeName) -> Result<(), String> {
        let node = self.nodes.get_mut(name).unwrap();
        let Some(work) = node.work.take().filter(|_| node.up) else {
            return Ok(());
        };
        let fails = !self.peace && self.dice.chance(60);
        let done = !fails && self.carry_out(name, work);
        if !self.peace && self.dice.chance(40) {
            return self.crash(name);
        }
        if self.crashes(name, Moment::AfterEffect) {
            return Ok(());
        }
        let word = if done {
            Event::Done(work)
        } else {
            Event::Failed(work)
        };
        self.happens(name, &word).map(drop)
    }

    /// The last point of a hand-over needs a link that works both ways.
    fn carry_out(&mut self, name: &NodeName, work: Work) -> bool {
        if work != Work::Descent(Descent::Deliver) {
            return self.nodes.get_mut(name).unwrap().carry_out(work);
        }
        let Some(to) = self.nodes[name].hands_over_to().cloned() else {
            return false;
        };
        if !self.reachable(name, &to) {
            return false;
        }
        let mut other = self.nodes[&to].clone();
        let whole = self.nodes[name].deliver(&mut other);
        self.nodes.insert(to, other);
        whole
    }

    /// The daemon or the whole machine ends, and mostly comes back at once.
    fn crash(&mut self, name: &NodeName) -> Result<(), String> {
        let machine = self.dice.chance(500);
        let stays = self.dice.chance(300);
        let node = self.nodes.get_mut(name).unwrap();
        node.die(machine);
        if self.honest {
            self.mail.retain(|(_, to, _)| to != name);
        }
        if self.trace {
            println!(
                "{name}: {} dies",
                if machine { "the machine" } else { "the daemon" }
            );
        }
        if stays { Ok(()) } else { self.start(name) }
    }

    pub fn start(&mut self, name: &NodeName) -> Result<(), String> {
        let node = self.nodes.get_mut(name).unwrap();
        node.up = true;
        let serving = node.serving;
        self.happens(name, &Event::Started { serving }).map(drop)
    }

    fn cut(&mut self, name: &NodeName) {
        let other = self.names[self.dice.below(self.names.len())].clone();
        let way = (name.clone(), other);
        if !self.cuts.remove(&way) {
            self.cuts.insert(way);
        }
    }

    /// Keeps an image of the disk, or comes back from one: what was written since is gone, and nobody promised it.
    fn image(&mut self, name: &NodeName) {
        let take = self.dice.chance(700);
        let node = self.nodes.get_mut(name).unwrap();
        if take {
            self.images.insert(name.clone(), node.disk.clone());
        } else if let Some(image) = self.images.remove(name) {
            if self.trace {
                println!("{name}: rolled back to {}", image.record.state);
            }
            node.disk = image;
            node.die(true);
            let left = self.everything();
            self.promised.retain(|write| left.contains(write));
        }
    }

    fn everything(&self) -> BTreeSet<u64> {
        let mut all = BTreeSet::new();
        for node in self.nodes.values() {
            node.disk.writes(&mut all);
        }
        all
    }

    /// The properties of every moment.
    fn check(&self) -> Result<(), String> {
        let serving: Vec<&NodeName> = self
            .names
            .iter()
            .filter(|name| self.nodes[*name].serving)
            .collect();
        if self.honest && serving.len() > 1 {
            return Err(format!("{serving:?} serve at once: {}", self.states()));
        }
        let all = self.everything();
        if let Some(lost) = self.promised.iter().find(|write| !all.contains(write)) {
            return Err(format!("the write {lost} is nowhere"));
        }
        self.nodes.values().try_for_each(Node::check)
    }

    pub fn heal(&mut self) {
        self.peace = true;
        self.unattended = false;
        self.cuts.clear();
        let down: Vec<NodeName> = self
            .names
            .iter()
            .filter(|name| !self.nodes[*name].up)
            .cloned()
            .collect();
        for name in down {
            self.start(&name).expect("starting checks nothing");
        }
    }

    /// Both ways.
    pub fn reachable(&self, one: &NodeName, other: &NodeName) -> bool {
        let ways = [(one.clone(), other.clone()), (other.clone(), one.clone())];
        !ways.iter().any(|way| self.cuts.contains(way))
    }

    pub fn states(&self) -> String {
        let states = self.nodes.iter().map(|(name, node)| {
            format!(
                "{name} is {} at {}",
                node.disk.record.state, node.disk.record.seen
            )
        });
        states.collect::<Vec<_>>().join(", ")
    }

    pub fn settled(&self) -> bool {
        let records: Vec<&Record> = self.nodes.values().map(|node| &node.disk.record).collect();
        let count = |wanted: State| {
            records
                .iter()
                .filter(|record| record.state == wanted)
                .count()
        };
        let newest = |node: &Node| node.disk.newest().map(|point| point.content.clone());
        let first = self.nodes.values().next().and_then(newest);
        count(State::Active) == 1
            && count(State::Standby) == records.len() - 1
            && records.iter().all(|record| record.seen == records[0].seen)
            && self.nodes.values().all(|node| newest(node) == first)
            && self.nodes.values().all(|node| {
                let live = node.disk.live.as_ref().map(|(_, content)| content);
                !node.disk.record.plays()
                    || live.is_none_or(Vec::is_empty)
                    || live == first.as_ref()
            })
    }

    /// In the end every node's line is the same, and every write is in it or in a fork.
    pub fn agreed(&self) -> Result<(), String> {
        let lines: Vec<&Vec<Point>> = self.nodes.values().map(|node| &node.disk.points).collect();
        if lines.iter().any(|line| *line != lines[0]) {
            return Err("the lines differ".to_owned());
        }
        Ok(())
    }
}
