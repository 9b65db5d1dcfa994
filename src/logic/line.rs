//! The line of a role: the terms it went through, and the point from which each of them went on.
//!
//! A term that is promoted from point 1.42 goes on from there: what the term before took after 1.42 is not of the line, on
//! whichever node it lies. Promise: from the line alone, without asking anybody, a node tells which of its points belong to
//! it and where the others left it. Points are judged by their ids, never by time.
//!
//! It deliberately does not know what becomes of points that are not of the line, nor who believes which line.

use serde::{Deserialize, Serialize};

use super::point::{PointId, Term};

/// Terms that a line may hold; what a peer says beyond it is refused. One an hour for a year, some 2 MB of JSON.
const TURNS_MAX: usize = 10_000;

/// A term, and the point from which it went on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Turn {
    pub term: Term,
    /// None: with nothing before it, as the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PointId>,
}

/// Turns in the order of their epochs, none of which is there twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Turn>", into = "Vec<Turn>")]
pub struct Line {
    turns: Vec<Turn>,
}

impl Line {
    /// Of a role that begins.
    pub fn first(term: Term) -> Line {
        Line {
            turns: vec![Turn { term, base: None }],
        }
    }

    /// As far as points tell, oldest first: each term goes on from the newest point before it. What a node knows that lost
    /// everything but its points.
    pub fn of_points<'a>(points: impl IntoIterator<Item = &'a PointId>) -> Line {
        let mut line = Line::default();
        let mut before: Option<&PointId> = None;
        for point in points {
            line.begin(point.term.clone(), before.cloned());
            before = Some(point);
        }
        line
    }

    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The newest term of it.
    pub fn term(&self) -> Option<&Term> {
        self.turns.last().map(|turn| &turn.term)
    }

    /// A term goes on from `base`. One whose epoch is not above all the others is no news.
    pub fn begin(&mut self, term: Term, base: Option<PointId>) {
        if self.term().is_none_or(|last| last.epoch < term.epoch) {
            self.turns.push(Turn { term, base });
        }
    }

    /// The point from which a term of the line went on.
    pub fn base_of(&self, term: &Term) -> Option<&PointId> {
        self.turns
            .iter()
            .find(|turn| turn.term == *term)?
            .base
            .as_ref()
    }

    /// The newest of the points `here`, oldest first, from which a point that is not of the line can have grown: the one where
    /// the line left it, if that is here. A disk that was set back knows of that only by name.
    pub fn grown_from<'a>(&self, point: &PointId, here: &[&'a PointId]) -> Option<&'a PointId> {
        let left = self.left_at(point);
        let is_left = |at: &&&PointId| Some(**at) == left;
        let before = |at: &&&PointId| self.contains(at) && at.rank() < point.rank();
        let found = here.iter().find(is_left);
        found.or_else(|| here.iter().rev().find(before)).copied()
    }

    /// The highest sequence from which a term went on, 0 where none did: who was away, or was set back to an older disk, may
    /// not know the points up to it, and must not give their numbers to others.
    pub fn counted(&self) -> u64 {
        let bases = self.turns.iter().filter_map(|turn| turn.base.as_ref());
        bases.map(|base| base.sequence).max().unwrap_or(0)
    }

    /// Whether a point is of the line. True where nothing is known of the line at all.
    pub fn contains(&self, point: &PointId) -> bool {
        let known = self.turns.iter().any(|turn| turn.term == point.term);
        // The beginning may have been forgotten; then what is older than all that is known has only to lie before it.
        let older = self
            .turns
            .first()
            .is_none_or(|first| first.base.is_some() && point.term.epoch < first.term.epoch);
        (known || older) && self.left_at(point).is_none()
    }

    /// Where the line left a point behind: the base of the first later term that went on from before it. None: it did not,
    /// or it left with nothing.
    pub fn left_at(&self, point: &PointId) -> Option<&PointId> {
        let later = self
            .turns
            .iter()
            .filter(|turn| turn.term.epoch > point.term.epoch);
        later
            .filter_map(|turn| turn.base.as_ref())
            .find(|base| base.rank() < point.rank())
    }
}

/// Why a peer's words are no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("more than {TURNS_MAX} terms")]
    Long,
    #[error("terms out of order")]
    Order,
}

impl TryFrom<Vec<Turn>> for Line {
    type Error = BadLine;

    fn try_from(turns: Vec<Turn>) -> Result<Line, BadLine> {
        if turns.len() > TURNS_MAX {
            return Err(BadLine::Long);
        }
        let rises = |pair: &[Turn]| pair[0].term.epoch < pair[1].term.epoch;
        if !turns.windows(2).all(rises) {
            return Err(BadLine::Order);
        }
        Ok(Line { turns })
    }
}

impl From<Line> for Vec<Turn> {
    fn from(line: Line) -> Vec<Turn> {
        line.turns
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::NodeName;
    use super::*;

    /// `3b`: epoch and holder.
    fn term(word: &str) -> Term {
        Term {
            epoch: word[..1].parse().unwrap(),
            holder: NodeName::parse(&word[1..]).unwrap(),
            nonce: 0,
        }
    }

    /// `3b.7`
    fn point(word: &str) -> PointId {
        let (word, sequence) = word.split_once('.').unwrap();
        PointId {
            term: term(word),
            sequence: sequence.parse().unwrap(),
        }
    }

    /// `1a 2b<1a.7`: the second term went on from 1a.7.
    fn line(words: &str) -> Line {
        let turns = words.split_whitespace().map(|word| {
            let (word, base) = word.split_once('<').unwrap_or((word, ""));
            Turn {
                term: term(word),
                base: (!base.is_empty()).then(|| point(base)),
            }
        });
        Line::try_from(turns.collect::<Vec<_>>()).unwrap()
    }

    fn check(words: &str, on: &str, off: &str) {
        let line = line(words);
        let wrong = |expected: bool, list: &str| {
            let points = list.split_whitespace().map(point);
            points
                .filter(|point| line.contains(point) != expected)
                .collect::<Vec<_>>()
        };
        assert_eq!(wrong(true, on), [], "of the line {words}");
        assert_eq!(wrong(false, off), [], "not of the line {words}");
    }

    #[test]
    fn which_points_belong() {
        check("", "1a.1 7c.3", "");
        check("1a", "1a.1 1a.9", "1b.1 2a.1");
        check("1a 2b<1a.7", "1a.1 1a.7 2b.8", "1a.8 1a.9 2a.8 2c.1 3b.1");
        // A later term may go back further than the one before.
        check("1a 2b<1a.7 3a<1a.5", "1a.5 3a.6", "1a.6 1a.7 2b.8");
        check("1a 3c<1a.7", "1a.7 3c.8", "2b.5 2b.8 1a.8");
        // A forgotten beginning.
        check("4b<3a.7", "3a.7 2c.9 1a.1 4b.8", "3a.8 4a.8");
        check("4b", "4b.1", "3a.7");
    }

    #[test]
    fn where_a_point_was_left() {
        let line = line("1a 2b<1a.7 3a<2b.9");
        let left = |word: &str| line.left_at(&point(word)).cloned();
        assert_eq!(left("1a.8"), Some(point("1a.7")));
        assert_eq!(left("1a.7"), None);
        assert_eq!(left("2b.11"), Some(point("2b.9")));
        assert_eq!(line.base_of(&term("3a")), Some(&point("2b.9")));
    }

    #[test]
    fn where_a_fork_grew() {
        let check = |words: &str, fork: &str, here: &str, base: Option<&str>| {
            let here: Vec<PointId> = here.split_whitespace().map(point).collect();
            let here: Vec<&PointId> = here.iter().collect();
            let found = line(words).grown_from(&point(fork), &here).cloned();
            assert_eq!(found, base.map(point), "{fork} of {words}");
        };
        check("1a 2b<1a.7", "1a.8", "1a.6 1a.7", Some("1a.7"));
        check("1a 2b<1a.7", "1a.8", "1a.2 1a.3", Some("1a.3"));
        check("1a 2b<1a.7", "1a.8", "", None);
        // Apart: the line never had its term.
        check("1a", "1z.8", "1a.2 1a.7 1a.9", Some("1a.7"));
    }

    #[test]
    fn numbers_that_are_taken() {
        let check =
            |words: &str, counted: u64| assert_eq!(line(words).counted(), counted, "{words}");
        check("", 0);
        check("1a", 0);
        check("1a 2b<1a.7", 7);
        check("1a 2b<1a.7 3a<1a.5", 7);
    }

    #[test]
    fn from_points_alone() {
        let points = ["1a.1", "1a.2", "3b.3", "3b.4", "4a.5"].map(point);
        assert_eq!(Line::of_points(&points), line("1a 3b<1a.2 4a<3b.4"));
        let mut line = line("1a 3b<1a.2");
        line.begin(term("2c"), None);
        assert_eq!(line.term(), Some(&term("3b")), "a lower term is no news");
    }

    #[test]
    fn a_peer_may_not_say_just_anything() {
        for words in ["2a 1b", "1a 1b"] {
            let turns: Vec<Turn> = words
                .split_whitespace()
                .map(|word| Turn {
                    term: term(word),
                    base: None,
                })
                .collect();
            let text = serde_json::to_string(&turns).unwrap();
            assert!(serde_json::from_str::<Line>(&text).is_err(), "{words}");
        }
    }
}
