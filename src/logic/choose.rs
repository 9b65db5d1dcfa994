//! Which point a person means by what they wrote.

use super::manifest::{Reason, Stored};

/// Finds a point by its words: `latest`, a whole name, `epoch.sequence`, or the beginning of a name; `~2` after one means the
/// second point before it. `points` are oldest first. The error is half a sentence for the person.
///
/// `latest` is the newest point that was not made by a restore to keep what it replaced: who restores `latest` twice means
/// the same point both times, not the state that the first restore got rid of.
pub fn find<'a>(points: &'a [Stored], words: &str) -> Result<&'a Stored, String> {
    if let Some((words, back)) = words.rsplit_once('~') {
        let named = find(points, words)?;
        let back: usize = back
            .parse()
            .map_err(|_| format!("{back:?} is no number of points to go back"))?;
        let at = points.iter().position(|point| std::ptr::eq(point, named));
        let before = at.and_then(|at| at.checked_sub(back));
        return before.and_then(|at| points.get(at)).ok_or_else(|| {
            let short = &named.manifest.point;
            format!("there are not {back} points before {short}; `standin points` lists them")
        });
    }
    if words == "latest" {
        let regular = |point: &&Stored| point.manifest.reason != Reason::BeforeRestore;
        let latest = points.iter().rev().find(regular).or(points.last());
        return latest.ok_or_else(|| "the role has no points yet".to_owned());
    }
    let name = |point: &Stored| point.manifest.name().to_string();
    let exact = |point: &&Stored| name(point) == words || point.manifest.point.to_string() == words;
    if let Some(found) = points.iter().find(exact) {
        return Ok(found);
    }
    let begins: Vec<&Stored> = points
        .iter()
        .filter(|point| name(point).starts_with(words))
        .collect();
    match begins.as_slice() {
        [one] if !words.is_empty() => Ok(one),
        [] | [_] => Err("no point is called that; `standin points` lists them".to_owned()),
        many => Err(format!(
            "{} points begin with {words:?}; write more of the name, or its number ({})",
            many.len(),
            many[0].manifest.point
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{LocalFacts, Manifest};
    use super::super::name::{NodeName, RoleName};
    use super::super::point::{PointId, RoleId, Term};
    use super::*;

    /// Three points of one day; the last one was made by a restore.
    fn points() -> Vec<Stored> {
        let stored = |sequence: u64, reason| Stored {
            manifest: Manifest {
                version: 1,
                role: RoleId(uuid::Uuid::nil()),
                role_name: RoleName::parse("web").unwrap(),
                point: PointId {
                    term: Term {
                        epoch: 1,
                        holder: NodeName::parse("alder").unwrap(),
                        nonce: 0,
                    },
                    sequence,
                },
                taken: format!("2026-11-20T1{sequence}:00:00Z").parse().unwrap(),
                node: NodeName::parse("alder").unwrap(),
                reason,
                datasets: Default::default(),
                dumps: Vec::new(),
            },
            local: LocalFacts::default(),
        };
        vec![
            stored(1, Reason::Schedule),
            stored(2, Reason::Asked),
            stored(3, Reason::BeforeRestore),
        ]
    }

    fn check(words: &str, expected: &str) {
        let points = points();
        let found = match find(&points, words) {
            Ok(point) => point.manifest.point.to_string(),
            Err(why) => why.split([';', ' ']).take(2).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(found, expected, "{words:?}");
    }

    #[test]
    fn words() {
        check("latest", "1.2");
        check("1.1", "1.1");
        check("1.3", "1.3");
        check("20261120T110000Z.1.1", "1.1");
        check("20261120T12", "1.2");
        check("20261120", "3 points");
        check("1.4", "no point");
        check("", "3 points");
        check("2027", "no point");
        check("latest~1", "1.1");
        check("latest~0", "1.2");
        check("1.3~2", "1.1");
        check("1.3~1~1", "1.1");
        check("latest~2", "there are");
        check("latest~x", "\"x\" is");
    }

    #[test]
    fn where_there_is_nothing() {
        assert!(find(&[], "latest").is_err());
        assert!(find(&[], "1.1").is_err());
        // What a restore kept is better than nothing.
        assert!(find(&points()[2..], "latest").is_ok());
    }
}
