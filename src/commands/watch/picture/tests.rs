//! The pictures of a sample, and the page docs/status.md that is made of them.

use std::fmt::Write;

use console::strip_ansi_codes;
use expect_test::{Expect, expect, expect_file};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::commands::samples;
use crate::commands::watch::model::{Key, News};
use crate::daemon::api::{DrillView, EventView, LossStatus, RoleStatus};
use crate::logic::name::{NodeName, RoleName};

fn event(second: i64, warning: bool, role: Option<&str>, text: &str) -> EventView {
    let at = samples::status().now.as_second() - second;
    EventView {
        at: jiff::Timestamp::from_second(at).unwrap(),
        role: role.map(|role| RoleName::parse(role).unwrap()),
        warning,
        text: text.into(),
    }
}

/// A role for which this node stands in.
fn stands_in(role: &RoleStatus) -> RoleStatus {
    let birch = NodeName::parse("birch").unwrap();
    RoleStatus {
        name: RoleName::parse("mail").unwrap(),
        state: "standby".into(),
        active: Some(birch.clone()),
        home: Some(birch.clone()),
        phase: None,
        next_run: None,
        replicas: vec![],
        words: vec![samples::word("birch", Some("active"), "1.43")],
        drill: None,
        loss: Some(LossStatus {
            active: birch,
            said: Some(role.newest.as_ref().unwrap().taken),
            exposure_s: Some(40.0),
            missing: None,
        }),
        ..role.clone()
    }
}

fn sample() -> Model {
    console::set_colors_enabled(false);
    let mut status = samples::status();
    let mail = stands_in(&status.roles[0]);
    status.roles.push(mail);
    let mut model = Model::new(status, None);
    model.hear(News::History(vec![
        event(
            86_400,
            true,
            None,
            "birch cannot be reached: the line is down",
        ),
        event(9_000, false, None, "linked to birch"),
        event(40, false, Some("web"), "took point 1.43"),
        event(
            39,
            true,
            Some("web"),
            "files holds a swap file, which is not replicated: swap.img",
        ),
        event(
            38,
            false,
            Some("web"),
            "sending 1.43 on top of 1.42 to birch",
        ),
        event(12, false, Some("mail"), "received point 1.43 from birch"),
    ]));
    model
}

fn with_points(model: &mut Model) {
    model.hear(News::Key(Key::Open));
    let points = samples::points().roles.remove(0);
    model.hear(News::Points(samples::role(), Ok(Box::new(points))));
}

fn screen(model: &Model, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let picture = |frame: &mut Frame| {
        draw(frame, model);
    };
    terminal.draw(picture).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| {
        let cells = (0..columns).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    let lines: Vec<String> = (0..rows).map(line).collect();
    lines.join("\n")
}

fn check(model: &Model, (columns, rows): (u16, u16), expected: Expect) {
    expected.assert_eq(&screen(model, columns, rows));
}

#[test]
fn a_wide_terminal_shows_all() {
    check(
        &sample(),
        (100, 32),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                                                         12:35:45

               ROLE     IS                EXPOSURE          NEWEST POINT       NEXT       DRILL
            >! web      active                              1.43 (40s ago)     transfer   passed 3m ago
                 birch  standby           5m 40s, 12.0 MiB  1.42 (5m 40s ago)  1 behind   hand-over about 3 s
                 cedar  not heard         everything        none               43 behind
                  ! cedar is not paired
               mail     standby of birch  40s               1.43 (40s ago)     -          never

            transfers
              web/files -> birch [=========>      ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left

            warnings
              ! web: files holds a swap file, which is not replicated: swap.img

            links
              birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead, at most 250kB/s until 20:00
              cedar  not paired                          pair it: standin pair invite

            events
              12:35:33  mail: received point 1.43 from birch
              12:35:07  web: sending 1.43 on top of 1.42 to birch
              12:35:06  ! web: files holds a swap file, which is not replicated: swap.img
              12:35:05  web: took point 1.43
              10:05:45  linked to birch
              Nov 19 12:35:45  ! birch cannot be reached: the line is down





            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
}

#[test]
fn a_small_one_shows_what_needs_attention() {
    check(
        &sample(),
        (60, 15),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                 12:35:45

               ROLE  IS                EXPOSURE
            >! web   active            everything (cedar)
               mail  standby of birch  40s

            transfers
              web/files -> birch  61 %  1.2 of 2.0 GiB  34.0 MiB/s

            warnings
              ! web: files holds a swap file, which is not replicated:
                  swap.img


            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
    check(
        &sample(),
        (80, 24),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                                     12:35:45

               ROLE     IS                EXPOSURE          NEWEST POINT       NEXT
            >! web      active                              1.43 (40s ago)     transfer
                 birch  standby           5m 40s, 12.0 MiB  1.42 (5m 40s ago)  1 behind
                 cedar  not heard         everything        none               43 behind
                  ! cedar is not paired
               mail     standby of birch  40s               1.43 (40s ago)     -

            transfers
              web/files -> birch [=======>    ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left

            warnings
              ! web: files holds a swap file, which is not replicated: swap.img

            links
              birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead, at most
                  250kB/s until 20:00
              cedar  not paired                          pair it: standin pair invite

            events
              12:35:33  mail: received point 1.43 from birch
              ... 5 more
            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
    check(
        &sample(),
        (40, 8),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m
               ROLE  IS                EXPOSURE
            >! web   active            everything...
            transfers
              web/files -> birch  61 %  1.2 of 2....
            warnings
              ... 2 more
            up/down  choose   enter  details   ? ..."#]],
    );
}

#[test]
fn many_roles_scroll_with_the_choice() {
    let mut model = sample();
    let role = model.status.roles.remove(0);
    model.status.roles = (0..40)
        .map(|number| RoleStatus {
            name: RoleName::parse(&format!("role-{number}")).unwrap(),
            ..role.clone()
        })
        .collect();
    (0..20).for_each(|_| drop(model.hear(News::Key(Key::Down))));
    check(
        &model,
        (80, 12),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                                     12:35:45

               ROLE     IS      EXPOSURE            NEWEST POINT    NEXT      DRILL
               role-19  active  everything (cedar)  1.43 (40s ago)  transfer  passed 3m ago
            >  role-20  active  everything (cedar)  1.43 (40s ago)  transfer  passed 3m ago
               role-21  active  everything (cedar)  1.43 (40s ago)  transfer  passed 3m ago
               ... 37 more
            transfers
              web/files -> birch [=======>    ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left
            warnings
              ! web: files holds a swap file, which is not replicated: swap.img
            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
}

#[test]
fn one_role_closely() {
    let mut model = sample();
    with_points(&mut model);
    check(
        &model,
        (100, 44),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                                                         12:35:45

            role web  active since 3d 4h, term 1 (alder), running: transfer
              newest point  1.43 (40s ago)   43 points here   last good cycle 4m 35s ago
              drill  passed 3m ago (1.42, 12s)
              verify 1.42 equal to birch's 2m ago
              PEER   IS       HOLDS              EXPOSURE          BEHIND     HAND-OVER
              birch  standby  1.42 (5m 40s ago)  5m 40s, 12.0 MiB  1 point    about 3 s
              cedar  -        none               everything        43 points  -
                cedar is not paired
              dataset files  /srv/web  40.0 GiB free of 100.0 GiB

            transfers
              web/files -> birch [=========>      ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left

            warnings
              ! files holds a swap file, which is not replicated: swap.img

            links
              birch  up          2h 35m, 12 ms  0.1.0    its clock is 3.2s ahead, at most 250kB/s until 20:00
              cedar  not paired                          pair it: standin pair invite

            events
              12:35:07  web: sending 1.43 on top of 1.42 to birch
              12:35:06  ! web: files holds a swap file, which is not replicated: swap.img
              12:35:05  web: took point 1.43

            points
              POINT  TAKEN (UTC)          ON     WHY       RECEIVED  ALSO ON  PINNED
              1.43   2026-11-20 12:35:05  alder  schedule         -  -        newest
              1.42   2026-11-20 12:30:05  alder  schedule         -  birch    base of birch
              1.41   2026-11-20 12:25:05  alder  schedule         -  birch
              orders in 1.43: postgres freeze, good, 1.2 s, writers held 12 ms, 5.0 MiB, PostgreSQL 15.14, at
                  0/1A2B3C4
              sessions in 1.43: postgres dump, NOT CONSISTENT, the dump failed: could not reach /run/postgresql:
                  no such file, 5.0 MiB, PostgreSQL 15.14, at 0/1A2B3C4
              not in 1.43: files: nested subvolume cache/thumbs
              alder's copy of 1.40 was changed after it was stored (files); it is not used
              hint: standin rescan web fetches them again from a peer
              1 fork kept beside them: standin fork list web
              set aside 2026-11-20 12:34:00: 1.39, which has lost its manifest:
                  /mnt/pool/.standin/.aside/web/20261120T121505Z.1.39.7f3a

            esc  back   up/down  scroll   ?  help   q  quit"#]],
    );
    model.scroll = 9;
    check(
        &model,
        (60, 15),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                 12:35:45

                  point    about 3 s
              cedar  -        none               everything        43
                  points  -
                cedar is not paired
              dataset files  /srv/web  40.0 GiB free of 100.0 GiB

            transfers
              web/files -> birch  61 %  1.2 of 2.0 GiB  34.0 MiB/s

            warnings
              ! files holds a swap file, which is not replicated:
            ... 36 lines more
            esc  back   up/down  scroll   ?  help   q  quit"#]],
    );
}

#[test]
fn a_daemon_that_is_gone() {
    let mut model = sample();
    model.hear(News::Gone("the daemon stopped".into()));
    check(
        &model,
        (80, 12),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                             OLD, of 12:35:45
            ! the daemon stopped; all below is of 12:35:45. Waiting for the daemon.

               ROLE  IS                EXPOSURE            NEWEST POINT    NEXT
            >! web   active            everything (cedar)  1.43 (40s ago)  transfer
               mail  standby of birch  40s                 1.43 (40s ago)  -
            transfers
              web/files -> birch [=======>    ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left
            warnings
              ! web: files holds a swap file, which is not replicated: swap.img

            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
}

#[test]
fn nothing_to_show() {
    let mut model = sample();
    model.status.roles.clear();
    model.status.peers.clear();
    model.status.transfers.clear();
    model.status.warnings.clear();
    model.events.clear();
    check(
        &model,
        (80, 6),
        expect![[r#"
        node alder  standin 0.1.0, up 4h 5m                                     12:35:45
        no roles configured: standin.toml names them, standin reload reads it



        ?  help   q  quit"#]],
    );
    with_points(&mut model);
    assert_eq!(model.page, Page::Overview);
}

#[test]
fn troubles_stand_below_what_they_are_of() {
    let mut model = sample();
    let role = &mut model.status.roles[0];
    role.paused = true;
    role.last_error = Some("could not snapshot files: no space\nhint: prune".into());
    role.drill = role.drill.clone().map(|last| DrillView {
        failure: Some("the check said no".into()),
        ..last
    });
    role.replicas[0].waiting = Some("waiting for space on birch: 3.1 GiB needed".into());
    check(
        &model,
        (100, 20),
        expect![[r#"
            node alder  standin 0.1.0, up 4h 5m                                                         12:35:45

               ROLE     IS                EXPOSURE          NEWEST POINT       NEXT       DRILL
            >! web      active, paused                      1.43 (40s ago)     transfer   FAILED 3m ago
                ! last cycle failed: could not snapshot files: no space
                ! the last drill failed: the check said no
                 birch  standby           5m 40s, 12.0 MiB  1.42 (5m 40s ago)  1 behind   hand-over about 3 s
                  ! waiting for space on birch: 3.1 GiB needed
                 cedar  not heard         everything        none               43 behind
                  ! cedar is not paired
               mail     standby of birch  40s               1.43 (40s ago)     -          never

            transfers
              web/files -> birch [=========>      ]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left

            warnings
              ! web: files holds a swap file, which is not replicated: swap.img


            up/down  choose   enter  details   ?  help   q  quit"#]],
    );
}

#[test]
fn every_size_is_drawn() {
    let mut model = sample();
    let mut gone = sample();
    gone.hear(News::Gone("the daemon stopped".into()));
    let mut helped = sample();
    helped.hear(News::Key(Key::Help));
    with_points(&mut model);
    let models = [sample(), model, gone, helped];
    for columns in [0, 1, 2, 5, 20, 59, 77, 97, 300] {
        for rows in [0, 1, 2, 3, 4, 5, 9, 15, 60] {
            for model in &models {
                let text = screen(model, columns, rows);
                assert!(text.lines().count() <= usize::from(rows.max(1)));
            }
        }
    }
}

#[test]
fn a_hostile_name_cannot_steer_the_terminal() {
    let mut model = sample();
    model.status.transfers[0].file = "a\x1b[2Jb\x1b]0;x\x07c".into();
    model.status.warnings = vec!["web: \x1b[2J\x1b[31mred\x07".into()];
    model.hear(News::History(vec![event(
        1,
        true,
        None,
        "x\x1b[1;1Hy\rz\u{9b}2J",
    )]));
    let text = screen(&model, 200, 40);
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(control), "{text:?}");
}

#[test]
fn colours_only_say_what_words_say() {
    let coloured = "\x1b[31mFAILED\x1b[0m \x1b[1mweb\x1b[0m";
    let painted = paint::lines([coloured]);
    assert_eq!(painted[0].to_string(), strip_ansi_codes(coloured));
}

#[test]
fn status_doc() {
    let mut page = "\
# What `standin status --watch` shows

On a terminal it is a picture that follows the daemon: it is drawn when new figures come, once a second, and when a key is touched.
Only what changed is written, so it is as usable over a slow line ([measurements.md](measurements.md)).
It changes nothing: quitting it stops nothing that runs.
Piped, it says a line for each role every ten seconds; with `--json`, a value every second ([json.md](json.md)).

This page is made from the values the tests use: `UPDATE_EXPECT=1 cargo test --lib status_doc` writes it anew.
"
    .to_owned();
    let mut part = |title: &str, text: &str, screen: String| {
        write!(page, "\n## {title}\n\n{text}\n\n```text\n{screen}\n```\n").unwrap();
    };
    let overview = "\
A line for each role, and below it one for each peer: what it holds, and what would be lost if it took over now.
`>` is the role that is chosen, `!` is what somebody should look at.";
    part("All roles", overview, screen(&sample(), 100, 32));
    let mut closely = sample();
    with_points(&mut closely);
    let role = "Enter shows all that is known of the chosen role; its points are listed anew when they change.";
    part("One role", role, screen(&closely, 100, 44));
    let small = "\
Where there is little room, the peers of roles, links and events give way; roles, warnings and transfers stay.
What is left out is counted.";
    part("A small terminal", small, screen(&sample(), 60, 15));
    let mut gone = sample();
    gone.hear(News::Gone("the daemon stopped".into()));
    let old = "\
The last figures stay, with the time of which they are; the daemon is looked for every second, and found again.";
    part("The daemon is gone", old, screen(&gone, 100, 16));
    let mut helped = sample();
    helped.hear(News::Key(Key::Help));
    part("Keys and words", "`?` shows them.", screen(&helped, 80, 28));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md");
    expect_file![file].assert_eq(&page);
}
