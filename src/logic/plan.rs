//! What to send next so that a peer holds what this node holds.
//!
//! Promises: total and pure, an answer for every pair of lineages; the base is a point that both sides hold by identity;
//! nothing is ever sent past points of theirs that this node never had: that is a [`Conflict`], an answer which carries
//! both histories for a person to judge. One step at a time: after it, both lineages are asked for again.
//!
//! A slow line makes progress: a half-sent point that this node still holds is finished before a newer one is begun.
//!
//! It deliberately does not know clocks, connections or which transfers are running.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::lineage::{Entry, Lineage};
use super::name::DatasetName;
use super::point::{PointId, Term};
use super::transfer::Partial;

/// The next move towards one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The peer holds the newest point.
    Nothing,
    Send(Step),
    Blocked(Conflict),
}

/// One point to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The newest point both hold; none: everything is sent in full.
    pub base: Option<PointId>,
    pub to: PointId,
    /// Part of the point is already with the peer.
    pub resumes: bool,
    /// For each dataset of the point its own base, the newest common point that has the dataset; none: in full.
    pub bases: BTreeMap<DatasetName, Option<PointId>>,
}

/// Two histories that cannot follow one another. Points oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// After the newest common point the peer holds points that this node never had.
    Diverged {
        common: Entry,
        ours_only: Vec<Entry>,
        theirs_only: Vec<Entry>,
    },
    /// Both hold points and no point is common.
    Unrelated {
        ours: Vec<Entry>,
        theirs: Vec<Entry>,
    },
}

/// What to send next. `partials` is what lies half-received with the peer.
pub fn plan(ours: &Lineage, theirs: &Lineage, partials: &[Partial]) -> Plan {
    let Some(newest) = ours.newest() else {
        return Plan::Nothing;
    };
    let mut common = ours.bases();
    common.retain(|entry| theirs.holds(entry));
    let Some(base) = common.last().copied() else {
        // A base that was removed or changed behind our back ends no history, as long as theirs is known here.
        let related = ours.known().filter(|entry| theirs.knows(entry));
        let floor = related.map(|entry| entry.point.rank()).max();
        if unknown_here(ours, theirs, floor).is_empty() {
            return Plan::Send(step(&common, next_target(newest, None, ours, partials)));
        }
        return Plan::Blocked(Conflict::Unrelated {
            ours: ours.entries().to_vec(),
            theirs: theirs.entries().to_vec(),
        });
    };
    let theirs_only = unknown_here(ours, theirs, Some(base.point.rank()));
    if !theirs_only.is_empty() {
        return Plan::Blocked(Conflict::Diverged {
            common: base.clone(),
            ours_only: newer_than(ours, base).cloned().collect(),
            theirs_only,
        });
    }
    if base.point == newest.point {
        return Plan::Nothing;
    }
    Plan::Send(step(
        &common,
        next_target(newest, Some(base), ours, partials),
    ))
}

/// What to send to a peer of which it is known that the shared base was let go here: everything, beside what it holds. None
/// where it holds anything that this node never had.
pub fn anew(ours: &Lineage, theirs: &Lineage, partials: &[Partial]) -> Option<Step> {
    let newest = ours.newest()?;
    let common = ours.bases().iter().any(|entry| theirs.holds(entry));
    let ours_once = |id: &PointId| {
        let same_term = |entry: &&Entry| entry.point.term == id.term;
        ours.get(id).is_none()
            && ours
                .entries()
                .iter()
                .filter(same_term)
                .any(|entry| entry.point.sequence > id.sequence)
    };
    let known = theirs.entries().iter().all(|entry| ours_once(&entry.point));
    (!common && known).then(|| step(&[], next_target(newest, None, ours, partials)))
}

/// The point to send and whether part of it is there: the newest half-sent one above the base, else the newest.
fn next_target<'a>(
    newest: &'a Entry,
    base: Option<&Entry>,
    ours: &'a Lineage,
    partials: &[Partial],
) -> (&'a Entry, bool) {
    let floor = base.map(|entry| entry.point.rank());
    partials
        .iter()
        .filter(|partial| Some(partial.point.rank()) > floor)
        .filter_map(|partial| ours.get(&partial.point))
        .max_by_key(|entry| entry.point.rank())
        .map_or((newest, false), |entry| (entry, true))
}

fn step(common: &[&Entry], (to, resumes): (&Entry, bool)) -> Step {
    let base_of = |dataset: &DatasetName| {
        common
            .iter()
            .rev()
            .find(|entry| entry.datasets.contains_key(dataset))
            .map(|entry| entry.point.clone())
    };
    Step {
        base: common.last().map(|entry| entry.point.clone()),
        to: to.point.clone(),
        resumes,
        bases: to
            .datasets
            .keys()
            .map(|dataset| (dataset.clone(), base_of(dataset)))
            .collect(),
    }
}

fn newer_than<'a>(lineage: &'a Lineage, base: &Entry) -> impl Iterator<Item = &'a Entry> {
    let floor = base.point.rank();
    lineage
        .entries()
        .iter()
        .filter(move |entry| entry.point.rank() > floor)
}

/// Their points above the floor, damaged ones too, that this node never had. A term has one holder and runs in one line, so
/// a point is known here, though no longer held, when this node holds a later one of the same term: it was stored there, the
/// word of that was lost, and retention let it go here, or somebody removed it.
fn unknown_here(ours: &Lineage, theirs: &Lineage, floor: Option<(u64, u64)>) -> Vec<Entry> {
    let mut latest: HashMap<&Term, u64> = HashMap::new();
    for PointId { term, sequence } in ours.known().map(|entry| &entry.point) {
        let known = latest.entry(term).or_default();
        *known = (*sequence).max(*known);
    }
    let let_go_here = |id: &PointId| {
        ours.known().all(|entry| entry.point != *id)
            && latest
                .get(&id.term)
                .is_some_and(|&known| known > id.sequence)
    };
    theirs
        .known()
        .filter(|entry| Some(entry.point.rank()) > floor)
        .filter(|entry| !ours.knows(entry) && !let_go_here(&entry.point))
        .cloned()
        .collect()
}

/// `send 1.42 on top of 1.41`, with the datasets that differ from that.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.resumes {
            "go on sending"
        } else {
            "send"
        };
        match &self.base {
            None => write!(f, "{verb} {} in full", self.to)?,
            Some(base) => write!(f, "{verb} {} on top of {base}", self.to)?,
        }
        for (dataset, base) in self.bases.iter().filter(|(_, base)| **base != self.base) {
            match base {
                None => write!(f, ", {dataset} in full")?,
                Some(base) => write!(f, ", {dataset} on top of {base}")?,
            }
        }
        Ok(())
    }
}

impl Conflict {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Conflict::Diverged { .. } => {
                "decide which history is to live on; nothing was sent or removed. To go on from here, move their newer points \
                 out of the role's directory on the peer (under .standin); to go on from theirs, restore from them first"
            }
            Conflict::Unrelated { .. } => {
                "the peer's points are of another history, or the shared base is gone; nothing was sent or removed. Move \
                 the peer's points out of the role's directory there (under .standin), and the next cycle sends everything"
            }
        }
    }
}

/// Both histories, some lines; [`Conflict::hint`] says what to do.
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::Diverged {
                common,
                ours_only,
                theirs_only,
            } => write!(
                f,
                "the histories part after {}\n  only here:  {}\n  only there: {}",
                Told(common),
                Tail(ours_only),
                Tail(theirs_only)
            ),
            Conflict::Unrelated { ours, theirs } => write!(
                f,
                "no point is common to both nodes\n  here:  {}\n  there: {}",
                Tail(ours),
                Tail(theirs)
            ),
        }
    }
}

/// A point as told to people: id, holder of its term, time.
struct Told<'a>(&'a Entry);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { point, taken, .. } = self.0;
        let taken = taken.strftime("%Y-%m-%d %H:%M:%SZ");
        write!(f, "{point} ({} {taken})", point.term.holder)
    }
}

/// The newest points of a history.
struct Tail<'a>(&'a [Entry]);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 5;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let hidden = self.0.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            write!(f, "({hidden} older) ")?;
        }
        let shown: Vec<String> = self.0[hidden..]
            .iter()
            .map(|entry| Told(entry).to_string())
            .collect();
        f.write_str(&shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::damage::Damaged;
    use super::super::name::NodeName;
    use super::super::point::PointName;
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    /// A letter is a point: `a` is 1.1, `b` is 1.2; capitals are of the term 2, which birch holds. `a'` has the id of `a`
    /// but other snapshots in it. `a+db` also has a dataset `db`; all have `files`.
    fn entry(word: &str) -> Entry {
        let (head, extra) = word.split_once('+').unwrap_or((word, ""));
        let letter = head.chars().next().unwrap();
        let (epoch, holder) = if letter.is_ascii_uppercase() {
            (2, "birch")
        } else {
            (1, "alder")
        };
        let term = Term {
            epoch,
            holder: NodeName::parse(holder).unwrap(),
            nonce: epoch * 11,
        };
        let sequence = u64::from(letter.to_ascii_lowercase() as u8 - b'a' + 1);
        let id =
            |salt: u128| Uuid::from_u128(letter as u128 * 1000 + head.len() as u128 * 100 + salt);
        let mut datasets = BTreeMap::from([(DatasetName::parse("files").unwrap(), id(1))]);
        if !extra.is_empty() {
            datasets.insert(DatasetName::parse(extra).unwrap(), id(2));
        }
        Entry {
            point: PointId { term, sequence },
            taken: Timestamp::from_second(1_800_000_000 + sequence as i64 * 60).unwrap(),
            datasets,
        }
    }

    /// A word with a `~` behind it is held damaged, one with a `#` is a bookmark of what is gone.
    fn lineage(words: &str) -> Lineage {
        let (left, words): (Vec<&str>, Vec<&str>) = words
            .split_whitespace()
            .partition(|word| word.ends_with('#'));
        let left = left.iter().map(|word| entry(word.trim_end_matches('#')));
        let (damaged, whole): (Vec<&str>, Vec<&str>) =
            words.into_iter().partition(|word| word.ends_with('~'));
        let damaged: Vec<Damaged> = damaged
            .iter()
            .map(|word| {
                let entry = entry(word.trim_end_matches('~'));
                Damaged {
                    name: PointName::of(&entry.point, entry.taken),
                    entry: Some(entry),
                    why: "was changed".to_owned(),
                }
            })
            .collect();
        Lineage::new(whole.into_iter().map(entry).collect())
            .with_damaged(&damaged)
            .with_remnants(left.collect())
    }

    fn letter(id: &PointId) -> char {
        let letter = (b'a' + id.sequence as u8 - 1) as char;
        if id.term.epoch == 2 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    }

    fn letters(entries: &[Entry]) -> String {
        let letters: Vec<String> = entries
            .iter()
            .map(|e| letter(&e.point).to_string())
            .collect();
        if letters.is_empty() {
            "none".to_owned()
        } else {
            letters.join(" ")
        }
    }

    fn told(plan: &Plan) -> String {
        match plan {
            Plan::Nothing => "nothing".to_owned(),
            Plan::Send(step) => {
                let mut text = match &step.base {
                    None => format!("full {}", letter(&step.to)),
                    Some(base) => format!("{} -> {}", letter(base), letter(&step.to)),
                };
                if step.resumes {
                    text += ", resumed";
                }
                for (dataset, base) in &step.bases {
                    match base {
                        _ if *base == step.base => {}
                        None => text += &format!(", {dataset} full"),
                        Some(base) => text += &format!(", {dataset} from {}", letter(base)),
                    }
                }
                text
            }
            Plan::Blocked(Conflict::Diverged {
                common,
                ours_only,
                theirs_only,
            }) => format!(
                "diverged after {}: ours {}, theirs {}",
                letter(&common.point),
                letters(ours_only),
                letters(theirs_only)
            ),
            Plan::Blocked(Conflict::Unrelated { ours, theirs }) => {
                format!(
                    "unrelated: ours {}, theirs {}",
                    letters(ours),
                    letters(theirs)
                )
            }
        }
    }

    /// `ours | theirs | partials`, oldest first.
    fn check(case: &str, expected: &str) {
        let mut parts = case.split('|');
        let ours = lineage(parts.next().unwrap());
        let theirs = lineage(parts.next().unwrap());
        let partials: Vec<Partial> = lineage(parts.next().unwrap_or(""))
            .entries()
            .iter()
            .map(|entry| Partial {
                point: entry.point.clone(),
                dataset: DatasetName::parse("files").unwrap(),
                offset: Some(1),
            })
            .collect();
        assert_eq!(told(&plan(&ours, &theirs, &partials)), expected, "{case}");
    }

    #[test]
    fn nothing_to_do() {
        check("|", "nothing");
        check("a b | a b", "nothing");
        check("b | a b", "nothing");
        check("| a b", "nothing");
    }

    #[test]
    fn on_top_of_what_is_left() {
        check("a b# c | a b", "b -> c");
        check("b# c | a b", "b -> c");
        check("a b# c | a", "a -> c");
        check("a# b# d | b C", "diverged after b: ours d, theirs C");
        check("a b~ b# c | a b", "b -> c");
    }

    #[test]
    fn full_when_they_are_empty() {
        check("a b |", "full b");
        check("a |", "full a");
    }

    #[test]
    fn from_the_newest_common() {
        check("a b c | a b", "b -> c");
        check("a b c d | b", "b -> d");
        check("a b c d | a c", "c -> d");
        check("b D | a b", "b -> D");
    }

    #[test]
    fn diverged_shows_both_tails() {
        check("a b | a x", "diverged after a: ours b, theirs x");
        check("a | a x", "diverged after a: ours none, theirs x");
        check("a b c | a b C D", "diverged after b: ours c, theirs C D");
        check("a B | a b", "diverged after a: ours B, theirs b");
    }

    #[test]
    fn one_id_with_other_snapshots_is_another_point() {
        check("a b | a b'", "diverged after a: ours b, theirs b");
        check("a b c | a b'", "diverged after a: ours b c, theirs b");
        check("a | a'", "unrelated: ours a, theirs a");
        // ... and harms nobody below the newest common one.
        check("a b c | a' b", "b -> c");
    }

    #[test]
    fn what_we_let_go_is_not_a_divergence() {
        check("a c | a b", "a -> c");
        check("a c D | a b", "a -> D");
        check("a c | a b B", "diverged after a: ours c, theirs B");
    }

    #[test]
    fn unrelated_when_nothing_is_common() {
        check("a b | x", "unrelated: ours a b, theirs x");
        check("c d | B", "unrelated: ours c d, theirs B");
    }

    #[test]
    fn a_base_that_is_lost_or_damaged_ends_no_history() {
        check("c d | a b", "full d");
        check("a c | a b~", "a -> c");
        check("a b | a b~", "a -> b");
        check("a b~ c | a b", "a -> c");
        check("a b~ | a b", "nothing");
        check("a~ b | a", "full b");
        check("b c | a b~", "full c");
        check("b~ C | a b", "full C");
        check("b~ C | a b D", "unrelated: ours C, theirs a b D");
        check("a b | a x~", "diverged after a: ours b, theirs x");
        check("a~ b | a'", "unrelated: ours b, theirs a");
    }

    /// The step when the base was let go.
    fn check_anew(case: &str, expected: &str) {
        let sides: Vec<Lineage> = case.split('|').map(lineage).collect();
        let step = anew(&sides[0], &sides[1], &[]);
        let got = step.map_or("none".to_owned(), |step| {
            assert!(step.bases.values().all(Option::is_none));
            step.to_string()
        });
        assert_eq!(got, expected, "{case}");
    }

    #[test]
    fn after_the_base_was_let_go_all_goes_anew() {
        check_anew("c d | a b", "send 1.4 in full");
        check_anew("b d | a c", "send 1.4 in full");
        // Somebody else's, one of ours that is newer than what is here, or of a term unknown here.
        check_anew("a b | x", "none");
        check_anew("a | b", "none");
        check_anew("c d | a B", "none");
        check_anew("a | a'", "none");
        // Something is common after all.
        check_anew("a c | a b", "none");
    }

    #[test]
    fn half_sent_points_come_first() {
        check("a b c | a | b", "a -> b, resumed");
        check("a b c | | b", "full b, resumed");
        check("a b c d | a | b c", "a -> c, resumed");
        check("a b c | a | c", "a -> c, resumed");
    }

    #[test]
    fn half_sent_points_of_no_use_are_passed_over() {
        check("a c | a | b", "a -> c");
        check("a b c | a b | a", "b -> c");
        check("a b | a b | b", "nothing");
        check("a b | a b | x", "nothing");
        check("a b | a x | b", "diverged after a: ours b, theirs x");
    }

    #[test]
    fn datasets_come_and_go() {
        check("a b+db | a", "a -> b, db full");
        check("a+db b | a+db", "a -> b");
        check("a+db b c+db | a+db b", "b -> c, db from a");
        check("a+db |", "full a");
    }

    #[test]
    fn words() {
        let blocked = |case: &str| {
            let (ours, theirs) = case.split_once('|').unwrap();
            match plan(&lineage(ours), &lineage(theirs), &[]) {
                Plan::Blocked(conflict) => conflict.to_string(),
                Plan::Nothing => String::new(),
                Plan::Send(step) => step.to_string(),
            }
        };
        expect_test::expect![[r#"
            the histories part after 1.1 (alder 2027-01-15 08:01:00Z)
              only here:  (2 older) 1.4 (alder 2027-01-15 08:04:00Z), 1.5 (alder 2027-01-15 08:05:00Z), 1.6 (alder 2027-01-15 08:06:00Z), 1.7 (alder 2027-01-15 08:07:00Z), 1.8 (alder 2027-01-15 08:08:00Z)
              only there: 2.2 (birch 2027-01-15 08:02:00Z)"#]]
        .assert_eq(&blocked("a b c d e f g h | a B"));
        expect_test::expect![[r#"
            no point is common to both nodes
              here:  1.1 (alder 2027-01-15 08:01:00Z)
              there: 1.2 (alder 2027-01-15 08:02:00Z)"#]]
        .assert_eq(&blocked("a | b"));
        expect_test::expect!["send 1.2 on top of 1.1, db in full"]
            .assert_eq(&blocked("a b+db | a"));
        expect_test::expect!["send 1.2 in full"].assert_eq(&blocked("a b |"));
    }

    proptest! {
        /// Whatever both hold: a step's base is held by both, its target by us alone and above the base; carrying out step
        /// after step ends with the peer holding our newest point.
        #[test]
        fn steps_lead_to_the_newest(
            ours in prop::sample::subsequence(vec!["a", "b", "c", "d", "E", "F"], 0..=6),
            theirs in prop::sample::subsequence(vec!["a", "b", "c", "d", "E", "F"], 0..=6),
            partial in prop::sample::select(vec!["a", "b", "c", "d", "E", "F"]),
        ) {
            let ours = lineage(&ours.join(" "));
            let mut theirs = lineage(&theirs.join(" "));
            let partial = Partial { point: entry(partial).point, dataset: DatasetName::parse("files").unwrap(), offset: None };
            for round in 0.. {
                prop_assert!(round < 3);
                match plan(&ours, &theirs, std::slice::from_ref(&partial)) {
                    Plan::Nothing => {
                        prop_assert!(ours.newest().is_none_or(|newest| theirs.holds(newest)));
                        break;
                    }
                    Plan::Blocked(_) => break,
                    Plan::Send(step) => {
                        let to = ours.get(&step.to).unwrap();
                        prop_assert!(!theirs.holds(to));
                        if let Some(base) = &step.base {
                            prop_assert!(ours.get(base).is_some() && theirs.get(base).is_some());
                            prop_assert!(base.rank() < step.to.rank());
                        }
                        let mut entries = theirs.entries().to_vec();
                        entries.push(to.clone());
                        theirs = Lineage::new(entries);
                    }
                }
            }
        }
    }
}
