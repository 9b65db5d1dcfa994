//! Where a role stands, in the lines that only a role in which something is to be said has.

use jiff::Timestamp;

use super::{attention, trouble};
use crate::commands::human;
use crate::daemon::api::{ReplicaStatus, RoleStatus, WordStatus};
use crate::logic::units;

/// What its state means, what is in the way, and what can be done.
pub fn outlook(role: &RoleStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let mut hints = Vec::new();
    if let Some(outlook) = &role.outlook {
        lines.push(attention(&outlook.meaning));
        hints.extend(outlook.next.clone());
    }
    lines.extend(role.trouble.as_deref().map(trouble));
    if role.paused {
        lines.push(attention("paused: nothing starts by itself"));
        hints.push(format!("standin pause {} --off", role.name));
    }
    lines.extend(away(role));
    lines.extend(hints.iter().map(|hint| format!("hint: {hint}")));
    lines.iter().map(|line| format!("  {line}")).collect()
}

/// A role that does not live at its home.
fn away(role: &RoleStatus) -> Option<String> {
    let (active, home) = (role.active.as_ref()?, role.home.as_ref()?);
    let there = match role.state.as_str() {
        _ if active == home => return None,
        "active" => String::new(),
        "standby" => format!(", on {active}"),
        _ => return None,
    };
    Some(format!(
        "its home is {home}: standin failback {}{there}",
        role.name
    ))
}

/// On a node that stands in: what a promotion would lose.
pub fn loss(role: &RoleStatus, now: Timestamp) -> Option<String> {
    let loss = role.loss.as_ref()?;
    let active = &loss.active;
    let lost = match loss.exposure_s {
        Some(seconds) if seconds < 1.0 => format!("the last second of {active}, at most"),
        Some(seconds) => {
            let span = units::human_duration(seconds);
            format!("the last {span} of {active}, at most")
        }
        None => "everything: no point is here yet".to_owned(),
    };
    let known = match (loss.said, &loss.missing) {
        (None, _) => format!("; {active} has said nothing yet"),
        (Some(said), Some(missing)) => {
            let ago = human::ago(said, now);
            format!("; {active} had {missing} {ago}, which is not here")
        }
        (Some(said), None) => format!("; {active} spoke {}", human::ago(said, now)),
    };
    Some(format!("  lost if promoted now  {lost}{known}"))
}

/// The last word of each peer, where no table has it.
pub fn words(role: &RoleStatus, now: Timestamp) -> Vec<String> {
    let in_table = |word: &&WordStatus| role.replicas.iter().any(|one| one.peer == word.peer);
    let words: Vec<&WordStatus> = role.words.iter().filter(|word| !in_table(word)).collect();
    let wide = words.iter().map(|word| word.peer.as_str().len()).max();
    let line = |word: &&WordStatus| {
        let said = match (&word.state, word.said) {
            (Some(state), Some(said)) => {
                let newest = word.newest.as_deref().map_or("nothing", |newest| newest);
                let ago = human::ago(said, now);
                format!("{state}, holds {newest}, said {ago}")
            }
            _ => "has said nothing of it yet".to_owned(),
        };
        format!("  {:wide$}  {said}", word.peer, wide = wide.unwrap_or(0))
    };
    words.iter().map(line).collect()
}

/// What is shown read-only elsewhere.
pub fn views(role: &RoleStatus) -> Vec<String> {
    let line = |view: &crate::daemon::api::ViewStatus| {
        let shows = match view.shows.as_deref() {
            Some("live") => "shows the live data".to_owned(),
            Some(point) => format!("shows {point}"),
            None => attention("shows nothing"),
        };
        format!("  view {}  {}  {shows}", view.dataset, view.path.display())
    };
    role.views.iter().map(line).collect()
}

/// `about 3 s`; with a `+` where something was never measured.
pub fn handover(replica: &ReplicaStatus) -> String {
    match &replica.handover {
        None => "-".to_owned(),
        Some(known) if known.unmeasured.is_empty() => format!("about {}", known.span()),
        Some(known) => format!("over {}", known.span()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::status::status;
    use crate::commands::samples;
    use crate::daemon::api::{ForksStatus, LossStatus, RoleStatus, Status, ViewStatus};
    use crate::logic::outlook::Outlook;

    fn check(change: &dyn Fn(&mut RoleStatus), expected: Expect) {
        console::set_colors_enabled(false);
        let mut said = Status {
            peers: vec![],
            transfers: vec![],
            warnings: vec![],
            ..samples::status()
        };
        let role = &mut said.roles[0];
        role.phase = None;
        role.replicas.pop();
        role.words.pop();
        change(role);
        let text = status(&said, None);
        let (_, role) = text.split_once("\n\n").unwrap();
        expected.assert_eq(role);
    }

    fn stands_in(role: &mut RoleStatus) {
        role.state = "standby".into();
        role.replicas.clear();
        role.next_run = None;
        role.words = vec![
            samples::word("alder", Some("active"), "1.43"),
            samples::word("cedar", None, ""),
        ];
        role.loss = Some(LossStatus {
            active: role.active.clone().unwrap(),
            said: role.words[0].said,
            exposure_s: Some(340.0),
            missing: Some("1.43".into()),
        });
    }

    #[test]
    fn a_role_that_is_well_takes_few_lines() {
        check(
            &|_| {},
            expect![[r#"
                role web  active since 3d 4h, term 1 (alder), every 5m, next in 4m 20s
                  newest point  1.43 (40s ago)   43 points here   last good cycle 4m 35s ago
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  PEER   IS       HOLDS              EXPOSURE          BEHIND   HAND-OVER
                  birch  standby  1.42 (5m 40s ago)  5m 40s, 12.0 MiB  1 point  about 3 s
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB"#]],
        );
    }

    #[test]
    fn what_a_standby_tells() {
        check(
            &stands_in,
            expect![[r#"
                role web  standby (active is alder since 3d 4h), term 1 (alder)
                  newest point  1.43 (40s ago)   43 points here
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  lost if promoted now  the last 5m 40s of alder, at most; alder had 1.43 40s ago, which is not here
                  alder  active, holds 1.43, said 40s ago
                  cedar  has said nothing of it yet
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB"#]],
        );
        let caught_up = |role: &mut RoleStatus| {
            stands_in(role);
            let loss = role.loss.as_mut().unwrap();
            (loss.exposure_s, loss.missing) = (Some(40.0), None);
            role.views = vec![ViewStatus {
                dataset: role.datasets[0].name.clone(),
                path: "/srv/web-view".into(),
                shows: Some("1.43".into()),
            }];
        };
        check(
            &caught_up,
            expect![[r#"
                role web  standby (active is alder since 3d 4h), term 1 (alder)
                  newest point  1.43 (40s ago)   43 points here
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  lost if promoted now  the last 40s of alder, at most; alder spoke 40s ago
                  alder  active, holds 1.43, said 40s ago
                  cedar  has said nothing of it yet
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB
                  view files  /srv/web-view  shows 1.43"#]],
        );
        let new = |role: &mut RoleStatus| {
            stands_in(role);
            (role.newest, role.points) = (None, 0);
            role.words[0] = samples::word("alder", None, "");
            let loss = role.loss.as_mut().unwrap();
            (loss.exposure_s, loss.missing, loss.said) = (None, None, None);
        };
        check(
            &new,
            expect![[r#"
                role web  standby (active is alder), term 1 (alder)
                  newest point  none   0 points here
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  lost if promoted now  everything: no point is here yet; alder has said nothing yet
                  alder  has said nothing of it yet
                  cedar  has said nothing of it yet
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB"#]],
        );
    }

    #[test]
    fn states_in_plain_words() {
        let waking = |role: &mut RoleStatus| {
            role.state = "waking (then services)".into();
            role.replicas.clear();
            role.paused = true;
            role.outlook = Some(Outlook {
                meaning: "was active when its daemon ended; asks cedar before it goes on".into(),
                next: Some("standin resume web, if nobody else plays it".into()),
            });
            role.trouble = Some("could not start writer: it is not healthy".into());
            role.forks = Some(ForksStatus {
                count: 1,
                bytes: Some(1_258_291),
                oldest: role.last_good.unwrap(),
            });
        };
        check(
            &waking,
            expect![[r#"
                role web  waking (then services), term 1 (alder), paused, every 5m, next in 4m 20s
                  was active when its daemon ended; asks cedar before it goes on
                  could not start writer: it is not healthy
                  paused: nothing starts by itself
                  hint: standin resume web, if nobody else plays it
                  hint: standin pause web --off
                  newest point  1.43 (40s ago)   43 points here
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  birch  standby, holds 1.42, said 40s ago
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB"#]],
        );
        let away = |role: &mut RoleStatus| {
            role.home = Some(role.replicas[0].peer.clone());
            let handover = role.replicas[0].handover.as_mut().unwrap();
            handover.unmeasured = vec!["the services take to stop".into()];
            role.replicas[0].exposure_bytes = None;
        };
        check(
            &away,
            expect![[r#"
                role web  active since 3d 4h, term 1 (alder), every 5m, next in 4m 20s
                  its home is birch: standin failback web
                  newest point  1.43 (40s ago)   43 points here   last good cycle 4m 35s ago
                  drill  passed 3m ago (1.42, 12s)
                  verify 1.42 equal to birch's 2m ago
                  PEER   IS       HOLDS              EXPOSURE              BEHIND   HAND-OVER
                  birch  standby  1.42 (5m 40s ago)  5m 40s, size unknown  1 point  over 3 s
                  dataset files  /srv/web  40.0 GiB free of 100.0 GiB"#]],
        );
    }
}
