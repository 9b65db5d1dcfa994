//! What a node has on disk: the record, the live copy, points and forks. Writes are numbers; a copy is the list of those
//! that reached it, in order.

use std::collections::BTreeSet;

use standin::logic::point::{PointId, Term};
use standin::logic::role::Record;

pub type Content = Vec<u64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Point {
    pub id: PointId,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    pub record: Record,
    /// Whose live copy it is: the term under which it was made.
    pub live: Option<(Term, Content)>,
    /// The line, oldest first.
    pub points: Vec<Point>,
    pub forks: Vec<Content>,
    /// The highest term whose line this is, and the point from which it went on: what an older term took after it is not of
    /// the line.
    pub base: Option<(Term, PointId)>,
}

impl Disk {
    /// Every write that is somewhere here.
    pub fn writes(&self, into: &mut BTreeSet<u64>) {
        let live = self.live.iter().map(|(_, content)| content);
        let points = self.points.iter().map(|point| &point.content);
        for content in live.chain(points).chain(&self.forks) {
            into.extend(content);
        }
    }

    pub fn holds(&self, point: &PointId) -> bool {
        self.points.iter().any(|held| held.id == *point)
    }

    pub fn newest(&self) -> Option<&Point> {
        self.points.last()
    }

    /// A writable copy of the newest point takes the live path; what was there is kept unless a point holds it. Again: done.
    pub fn make_live(&mut self, held: &Term, from: &PointId) {
        if self.live.as_ref().is_some_and(|(term, _)| term == held) {
            return;
        }
        self.keep_live();
        let at = self.points.iter().position(|point| point.id == *from);
        let at = at.expect("the point that is promoted is held here");
        // Later points are not of the line any more.
        for left in self.points.split_off(at + 1) {
            self.fork(left.content);
        }
        self.base = Some((held.clone(), from.clone()));
        self.live = Some((held.clone(), self.points[at].content.clone()));
    }

    /// Keeps the live copy as a fork, unless it holds nothing that a point or a fork here does not.
    pub fn keep_live(&mut self) {
        if let Some((_, content)) = self.live.clone() {
            if !self.points.iter().any(|point| point.content == content) {
                self.fork(content);
            }
        }
    }

    fn fork(&mut self, content: Content) {
        if !self.forks.contains(&content) {
            self.forks.push(content);
        }
    }

    /// A point of the live copy; none when nothing changed.
    pub fn take_point(&mut self) {
        let Some((term, content)) = self.live.clone() else {
            return;
        };
        let newest = self.newest();
        if newest.is_some_and(|newest| newest.content == content) {
            return;
        }
        let sequence = newest.map_or(0, |newest| newest.id.sequence) + 1;
        self.points.push(Point {
            id: PointId { term, sequence },
            content,
        });
    }

    /// Takes over the line of the active node, whose term went on from `base`: what is not in it becomes a fork, nothing is
    /// dropped.
    pub fn follow(&mut self, base: Option<&(Term, PointId)>, line: &[Point]) {
        let common = self
            .points
            .iter()
            .zip(line)
            .take_while(|(ours, theirs)| ours == theirs)
            .count();
        let newer_term = self.base.as_ref() != base;
        if newer_term || line.len() > common {
            for left in self.points.split_off(common) {
                self.fork(left.content);
            }
            self.points.extend_from_slice(&line[common..]);
            self.base = base.cloned();
        }
        // Else: an older message of the same line; what is here stays.
    }

    /// The point is of the term held here, and newer than any that was taken.
    pub fn lacks(&self, point: Option<&PointId>) -> bool {
        let newest = self.newest().map_or(0, |newest| newest.id.sequence);
        point.is_some_and(|point| {
            Some(&point.term) == self.record.held.as_ref() && point.sequence > newest
        })
    }
}
