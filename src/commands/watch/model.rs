//! What the watcher knows and where it looks, as a value: news and keys in, the next state out.
//!
//! Promise: pure. The choice is by name, so it stays where it was when roles come and go. What is kept is bounded, however
//! long somebody watches. When the daemon is gone the last figures stay, marked as old.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::commands::render;
use crate::daemon::api::{Event, EventView, RolePoints, RoleStatus, Status};
use crate::logic::name::RoleName;
use crate::logic::progress::TransferView;

/// Events that are kept to be shown.
pub const EVENTS_KEPT: usize = 100;

/// What is told to the watcher.
#[derive(Debug)]
pub enum News {
    Event(Event),
    /// What happened before somebody watched, oldest first.
    History(Vec<EventView>),
    /// The points of a role, or why they could not be had.
    Points(RoleName, Result<Box<RolePoints>, String>),
    /// The daemon cannot be asked any more, and why: a whole sentence.
    Gone(String),
    /// Keys cannot be read any more: nobody is there.
    Deserted,
    Key(Key),
    /// The terminal has another size.
    Resized,
}

/// What a person may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    Help,
    /// Draw everything anew.
    Anew,
    Quit,
}

/// What is to be done after news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing that could not wait for the next figures.
    Wait,
    /// Draw now: somebody touched a key.
    Draw,
    /// Draw now, and everything.
    Redraw,
    /// Ask for the points of a role, and draw.
    Points(RoleName),
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Overview,
    /// The role that is chosen.
    Role,
    Help,
}

/// What can be chosen: a role, or all roles of one section of kind "logs".
#[derive(Debug)]
pub struct Entry<'s> {
    pub name: &'s RoleName,
    /// Of logs: this node's own first.
    pub roles: Vec<&'s RoleStatus>,
}

impl Entry<'_> {
    /// The role whose figures stand for all.
    pub fn first(&self) -> Option<&RoleStatus> {
        self.roles.first().copied()
    }
}

#[derive(Debug)]
pub struct Model {
    pub status: Status,
    /// Why the figures are old; none: they are not.
    pub old: Option<String>,
    /// Oldest first.
    pub events: VecDeque<EventView>,
    pub page: Page,
    /// Lines of a page that are above the terminal.
    pub scroll: usize,
    /// How far the page can be scrolled, as it was drawn last; lines of one screen.
    pub room: (usize, usize),
    chosen: Option<RoleName>,
    under_help: Page,
    points: Option<(RoleName, Result<Box<RolePoints>, String>)>,
    /// Only what concerns this one is shown.
    only: Option<RoleName>,
}

impl Model {
    /// `only`: events of other roles are left out. The status is given without them.
    pub fn new(status: Status, only: Option<RoleName>) -> Model {
        Model {
            status,
            old: None,
            events: VecDeque::new(),
            page: Page::Overview,
            scroll: 0,
            room: (0, 1),
            chosen: None,
            under_help: Page::Overview,
            points: None,
            only,
        }
    }

    pub fn entries(&self) -> Vec<Entry<'_>> {
        let entry = |role| match render::logs_block(&self.status, role) {
            None if role.logs.is_some() => None,
            None => Some(Entry {
                name: &role.name,
                roles: vec![role],
            }),
            Some(roles) => Some(Entry {
                name: role.logs.as_ref().unwrap_or(&role.name),
                roles,
            }),
        };
        self.status.roles.iter().filter_map(entry).collect()
    }

    /// Where the choice is among the entries.
    pub fn chosen(&self) -> usize {
        let entries = self.entries();
        let at = |name| entries.iter().position(|entry| entry.name == name);
        self.chosen.as_ref().and_then(at).unwrap_or(0)
    }

    /// What is known of the points of a role.
    pub fn points(&self, role: &RoleName) -> Option<&Result<Box<RolePoints>, String>> {
        let (of, points) = self.points.as_ref()?;
        (of == role).then_some(points)
    }

    pub fn hear(&mut self, news: News) -> Wish {
        match news {
            News::Event(event) => self.happened(event),
            News::History(events) => {
                self.events.clear();
                events.into_iter().for_each(|event| self.remember(event));
                Wish::Wait
            }
            News::Points(role, points) => {
                self.points = Some((role, points));
                Wish::Draw
            }
            News::Gone(why) => {
                let known = self.old.replace(why);
                match known == self.old {
                    true => Wish::Wait,
                    false => Wish::Draw,
                }
            }
            News::Deserted => Wish::Leave,
            News::Key(key) => self.press(key),
            News::Resized => Wish::Redraw,
        }
    }

    fn happened(&mut self, event: Event) -> Wish {
        match event {
            Event::Status { status } => {
                let newest = |status: &Status, name: &RoleName| {
                    let role = status.roles.iter().find(|role| role.name == *name)?;
                    Some((role.newest.clone(), role.points))
                };
                let shown = self.shown_role();
                let before = shown.as_ref().and_then(|name| newest(&self.status, name));
                self.status = *status;
                self.old = None;
                match shown {
                    // What is listed on the page is not what there is any more.
                    Some(name) if newest(&self.status, &name) != before => Wish::Points(name),
                    _ => Wish::Draw,
                }
            }
            Event::Transfer { transfer } => {
                self.moved(transfer);
                Wish::Wait
            }
            Event::TransferEnd { id, .. } => {
                self.status.transfers.retain(|transfer| transfer.id != id);
                Wish::Wait
            }
            Event::Note { at, role, text } => self.told(at, role, false, text),
            Event::Warning { at, role, text } => self.told(at, role, true, text),
            // Only of files that were asked for.
            Event::Data { .. } => Wish::Wait,
        }
    }

    /// Newer figures of a transfer; one that began since the last status comes with the next.
    fn moved(&mut self, transfer: TransferView) {
        let known = self.status.transfers.iter_mut();
        if let Some(known) = known.into_iter().find(|known| known.id == transfer.id) {
            *known = transfer;
        }
    }

    fn told(&mut self, at: Timestamp, role: Option<RoleName>, warning: bool, text: String) -> Wish {
        self.remember(EventView {
            at,
            role,
            warning,
            text,
        });
        Wish::Wait
    }

    fn remember(&mut self, mut event: EventView) {
        let concerns = |of: &RoleName| self.status.roles.iter().any(|role| role.name == *of);
        if self.only.is_some() && !event.role.as_ref().is_none_or(concerns) {
            return;
        }
        // The history knows no finer times, and tells again what was told while it was asked for.
        let milliseconds = Timestamp::from_millisecond(event.at.as_millisecond());
        event.at = milliseconds.unwrap_or(event.at);
        if self.events.contains(&event) {
            return;
        }
        self.events.push_back(event);
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    fn press(&mut self, key: Key) -> Wish {
        let (most, screen) = self.room;
        match (self.page, key) {
            (_, Key::Quit) => return Wish::Leave,
            (_, Key::Anew) => return Wish::Redraw,
            (Page::Help, Key::Help | Key::Back | Key::Open) => self.turn(self.under_help),
            (page, Key::Help) => {
                self.under_help = page;
                self.turn(Page::Help);
            }
            (Page::Role, Key::Back) => self.turn(Page::Overview),
            (Page::Overview, Key::Open) if !self.status.roles.is_empty() => {
                self.choose(self.chosen());
                self.turn(Page::Role);
                if let Some(role) = self.shown_role() {
                    return Wish::Points(role);
                }
            }
            (Page::Overview, Key::Up) => self.choose(self.chosen().saturating_sub(1)),
            (Page::Overview, Key::Down) => self.choose(self.chosen() + 1),
            (Page::Overview, Key::First | Key::PageUp) => self.choose(0),
            (Page::Overview, Key::Last | Key::PageDown) => self.choose(usize::MAX),
            (_, Key::Up) => self.scroll = self.scroll.saturating_sub(1),
            (_, Key::Down) => self.scroll = (self.scroll + 1).min(most),
            (_, Key::PageUp) => self.scroll = self.scroll.saturating_sub(screen),
            (_, Key::PageDown) => self.scroll = (self.scroll + screen).min(most),
            (_, Key::First) => self.scroll = 0,
            (_, Key::Last) => self.scroll = most,
            (_, Key::Open | Key::Back) => return Wish::Wait,
        }
        Wish::Draw
    }

    fn turn(&mut self, page: Page) {
        self.page = page;
        self.scroll = 0;
    }

    fn choose(&mut self, at: usize) {
        let entries = self.entries();
        let at = at.min(entries.len().saturating_sub(1));
        self.chosen = entries.get(at).map(|entry| entry.name.clone());
    }

    /// The role whose points the page shows.
    fn shown_role(&self) -> Option<RoleName> {
        let on_page = match self.page {
            Page::Help => self.under_help,
            page => page,
        };
        if on_page != Page::Role {
            return None;
        }
        let entries = self.entries();
        let entry = entries.get(self.chosen())?;
        Some(entry.first()?.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;

    fn model(names: &[&str]) -> Model {
        let mut status = samples::status();
        let role = status.roles.remove(0);
        let named = |name: &&str| RoleStatus {
            name: RoleName::parse(name).unwrap(),
            ..role.clone()
        };
        status.roles = names.iter().map(named).collect();
        Model::new(status, None)
    }

    fn press(model: &mut Model, keys: &[Key]) -> Wish {
        let mut wish = Wish::Wait;
        for key in keys {
            wish = model.hear(News::Key(*key));
        }
        wish
    }

    #[test]
    fn the_choice_stays_with_the_role() {
        let check = |keys: &[Key], then: &[&str], chosen: usize| {
            let mut watched = model(&["a", "b", "c"]);
            press(&mut watched, keys);
            let status = Box::new(model(then).status);
            watched.hear(News::Event(Event::Status { status }));
            assert_eq!(watched.chosen(), chosen, "{keys:?} {then:?}");
        };
        check(&[], &["a", "b", "c"], 0);
        check(&[Key::Down], &["a", "b", "c"], 1);
        check(&[Key::Down], &["b", "c"], 0);
        check(
            &[Key::Down, Key::Down, Key::Down, Key::Down],
            &["a", "b", "c"],
            2,
        );
        check(&[Key::Last, Key::Up], &["0", "a", "b", "c"], 2);
        check(&[Key::Last, Key::First], &["a", "b", "c"], 0);
        check(&[Key::Down], &["a", "c"], 0);
        check(&[Key::Down], &[], 0);
    }

    #[test]
    fn keys_turn_pages() {
        let check = |keys: &[Key], page: Page, wish: Wish| {
            let mut watched = model(&["a", "b"]);
            let last = press(&mut watched, keys);
            assert_eq!((watched.page, last), (page, wish), "{keys:?}");
        };
        let b = RoleName::parse("b").unwrap();
        check(&[Key::Down, Key::Open], Page::Role, Wish::Points(b));
        check(&[Key::Open, Key::Back], Page::Overview, Wish::Draw);
        check(&[Key::Open, Key::Help], Page::Help, Wish::Draw);
        check(&[Key::Open, Key::Help, Key::Back], Page::Role, Wish::Draw);
        check(&[Key::Help, Key::Help], Page::Overview, Wish::Draw);
        check(&[Key::Back], Page::Overview, Wish::Wait);
        check(&[Key::Help, Key::Quit], Page::Help, Wish::Leave);
        check(&[Key::Anew], Page::Overview, Wish::Redraw);
        let mut none = model(&[]);
        assert_eq!(press(&mut none, &[Key::Open]), Wish::Wait);
    }

    #[test]
    fn a_page_is_scrolled_no_further_than_it_goes() {
        let check = |keys: &[Key], scroll: usize| {
            let mut watched = model(&["a"]);
            press(&mut watched, &[Key::Open]);
            watched.room = (7, 5);
            press(&mut watched, keys);
            assert_eq!(watched.scroll, scroll, "{keys:?}");
        };
        check(&[Key::Down, Key::Down, Key::Up], 1);
        check(&[Key::PageDown], 5);
        check(&[Key::PageDown, Key::PageDown], 7);
        check(&[Key::Last, Key::PageUp], 2);
        check(&[Key::Last, Key::First, Key::Up], 0);
        check(&[Key::Last, Key::Help], 0);
    }

    #[test]
    fn points_are_asked_for_when_they_changed() {
        let mut watched = model(&["a", "b"]);
        press(&mut watched, &[Key::Open]);
        let mut next = model(&["a", "b"]).status;
        let same = Box::new(next.clone());
        assert_eq!(
            watched.hear(News::Event(Event::Status { status: same })),
            Wish::Draw
        );
        next.roles[0].points += 1;
        let status = Box::new(next);
        let wish = watched.hear(News::Event(Event::Status { status }));
        assert_eq!(wish, Wish::Points(RoleName::parse("a").unwrap()));
    }

    #[test]
    fn what_is_old_says_so_until_there_is_news() {
        let mut watched = model(&["a"]);
        let gone = || News::Gone("the daemon stopped".into());
        assert_eq!(watched.hear(gone()), Wish::Draw);
        assert_eq!(watched.hear(gone()), Wish::Wait);
        assert!(watched.old.is_some());
        let status = Box::new(model(&["a"]).status);
        watched.hear(News::Event(Event::Status { status }));
        assert_eq!(watched.old, None);
    }

    #[test]
    fn events_are_told_once_and_bounded() {
        let note = |second: i64, nanosecond: i32| Event::Note {
            at: Timestamp::new(1_800_000_000 + second, nanosecond).unwrap(),
            role: None,
            text: "took point 1.43".into(),
        };
        let mut watched = model(&["a"]);
        watched.hear(News::Event(note(0, 5_000_001)));
        watched.hear(News::Event(note(0, 5_000_999)));
        assert_eq!(watched.events.len(), 1);
        (1..=2 * EVENTS_KEPT as i64).for_each(|second| {
            watched.hear(News::Event(note(second, 0)));
        });
        assert_eq!(watched.events.len(), EVENTS_KEPT);
        let mut only = Model::new(samples::status(), Some(samples::role()));
        let of = |role: &str| Event::Warning {
            at: samples::status().now,
            role: RoleName::parse(role).ok(),
            text: "x".into(),
        };
        only.hear(News::Event(of("mail")));
        only.hear(News::Event(of("web")));
        assert_eq!(only.events.len(), 1);
    }
}
