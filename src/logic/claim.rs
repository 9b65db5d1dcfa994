//! What to make of a peer that speaks for a role under a term (P3: at most one node ever holds a term; nobody obeys a lower
//! one than it has seen).
//!
//! Pure: compares what the peer claims with what this node remembers. What follows from the answer is the caller's.

use super::line::Line;
use super::name::NodeName;
use super::point::{RoleId, Term};

/// What this node remembers of the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    pub id: RoleId,
    /// The highest term seen.
    pub term: &'a Term,
    /// This node holds that term.
    pub active: bool,
}

/// The peer's claim, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing is remembered: take the id and the term over.
    New,
    /// The term this node knows already.
    Current,
    /// A higher term: remember it before anything is done under it.
    Higher,
    /// Two roles of one name.
    OtherRole,
    /// A lower term than the one seen: refuse, and say which.
    Lower,
    /// This node is active itself, and the peer claims another term that is not lower.
    BothActive,
    /// The same epoch by another holder or another claim.
    SameEpoch,
}

/// How far above the highest epoch known here a peer's may lie. Each move of a role takes one, so no honest node is so far ahead;
/// and a peer that says the highest number there is would leave no higher term to anybody, for ever.
pub const EPOCHS_AHEAD_MAX: u64 = 1 << 20;

/// The same for the sequences of points: 136 years of one point a second.
pub const SEQUENCES_AHEAD_MAX: u64 = 1 << 32;

/// Whether a role can have come from `known` (0: nothing is known) to this epoch.
pub fn can_be(known: u64, epoch: u64) -> bool {
    epoch.saturating_sub(known) <= EPOCHS_AHEAD_MAX
}

/// Whether the node `by` may give the role away under `term`: who holds the highest term known here, or held the one before
/// it, when the new one is known already.
pub fn may_give(by: &NodeName, term: &Term, seen: &Term, line: &Line) -> bool {
    if seen != term {
        return seen.holder == *by;
    }
    let before = line.turns().iter().rev();
    let mut before = before.filter(|turn| turn.term.epoch < term.epoch);
    before.next().is_none_or(|turn| turn.term.holder == *by)
}

pub fn judge(known: Option<Known<'_>>, id: RoleId, term: &Term) -> Claim {
    let Some(known) = known else {
        return Claim::New;
    };
    if known.id != id {
        Claim::OtherRole
    } else if term.epoch < known.term.epoch {
        Claim::Lower
    } else if term == known.term {
        Claim::Current
    } else if known.active {
        Claim::BothActive
    } else if term.epoch == known.term.epoch {
        Claim::SameEpoch
    } else {
        Claim::Higher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `7a` is epoch 7 held by node a; a `!` behind it: this node is active.
    fn check(known: &str, claimed: &str, expected: Claim) {
        let id = RoleId(uuid::Uuid::from_u128(1));
        let term = |word: &str| Term {
            epoch: word[..1].parse().unwrap(),
            holder: NodeName::parse(&word[1..2]).unwrap(),
            nonce: 0,
        };
        let ours = (!known.is_empty()).then(|| term(known));
        let known = ours.as_ref().map(|term| Known {
            id,
            term,
            active: known.ends_with('!'),
        });
        assert_eq!(judge(known, id, &term(claimed)), expected);
    }

    #[test]
    fn terms() {
        check("", "1a", Claim::New);
        check("1a", "1a", Claim::Current);
        check("1a", "2a", Claim::Higher);
        check("1a", "2b", Claim::Higher);
        check("2a", "1a", Claim::Lower);
        check("2a", "2b", Claim::SameEpoch);
        check("2a!", "2b", Claim::BothActive);
        check("2a!", "3b", Claim::BothActive);
        check("2a!", "1b", Claim::Lower);
    }

    #[test]
    fn nobody_jumps_to_the_end() {
        assert!(can_be(0, 1) && can_be(7, 3) && can_be(7, 7 + EPOCHS_AHEAD_MAX));
        assert!(!can_be(7, 8 + EPOCHS_AHEAD_MAX) && !can_be(0, u64::MAX));
    }

    #[test]
    fn only_the_holder_gives() {
        let term = |epoch: u64, holder: &str| Term {
            epoch,
            holder: NodeName::parse(holder).unwrap(),
            nonce: 0,
        };
        let (first, second) = (term(1, "a"), term(2, "b"));
        let [a, c] = ["a", "c"].map(|name| NodeName::parse(name).unwrap());
        let mut line = Line::first(first.clone());
        assert!(may_give(&a, &second, &first, &line));
        assert!(!may_give(&c, &second, &first, &line));
        line.begin(second.clone(), None);
        assert!(may_give(&a, &second, &second, &line));
        assert!(!may_give(&c, &second, &second, &line));
    }

    #[test]
    fn a_role_is_its_id() {
        let term = Term {
            epoch: 1,
            holder: NodeName::parse("a").unwrap(),
            nonce: 0,
        };
        let known = Known {
            id: RoleId(uuid::Uuid::from_u128(1)),
            term: &term,
            active: false,
        };
        let other = RoleId(uuid::Uuid::from_u128(2));
        assert_eq!(judge(Some(known), other, &term), Claim::OtherRole);
    }
}
