//! Where news come from: the daemon, followed for as long as somebody watches, and the keys of the terminal.
//!
//! Promise: a daemon that goes away is told once and looked for every second; when it is back, so is the history. A watcher
//! that cannot keep up (a slow line) holds these threads back, and with them only what the daemon tells this client.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ratatui::crossterm::event::{
    Event as Happened, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read,
};

use super::model::{EVENTS_KEPT, Key, News};
use crate::commands::client::{self, Control, Patience, Watcher};
use crate::daemon::api::{Event, Events, Points, Request};
use crate::logic::name::RoleName;

/// Between two tries to reach a daemon that stopped.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Between two listings of the same points, which cost the daemon more than a status does.
const LIST_EVERY: Duration = Duration::from_secs(3);

/// Follows the daemon until nobody listens any more.
pub fn follow(control: &Control, news: &SyncSender<News>) {
    loop {
        let mut follower = Follower {
            control,
            news,
            greeted: false,
        };
        let why = match control.call(&Request::Watch, &mut follower) {
            Ok(None) => return,
            Ok(Some(_)) => "the daemon stopped".to_owned(),
            Err(error) if client::lost(&error) => "the daemon went away".to_owned(),
            Err(error) => format!("could not {error:#}"),
        };
        if news.send(News::Gone(why)).is_err() {
            return;
        }
        std::thread::sleep(TRY_EVERY);
    }
}

struct Follower<'f> {
    control: &'f Control,
    news: &'f SyncSender<News>,
    /// The history was asked for in this conversation.
    greeted: bool,
}

impl Watcher for Follower<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        if !std::mem::replace(&mut self.greeted, true) {
            let most = EVENTS_KEPT as u32;
            // An older daemon has no answer to that: what happens from now on is shown all the same.
            if let Ok((_, Events { events })) = self.control.ask(&Request::Events { most }) {
                self.tell(News::History(events))?;
            }
        }
        self.tell(News::Event(event))
    }

    fn tick(&mut self) -> Result<Patience> {
        Ok(Patience::Wait)
    }
}

impl Follower<'_> {
    fn tell(&self, news: News) -> Result<()> {
        let gone = |_| anyhow!("tell it: nobody watches any more");
        self.news.send(news).map_err(gone)
    }
}

/// Lists points of the roles it is asked for, of several at once only the last.
pub fn list(control: &Control, asked: &Receiver<RoleName>, news: &SyncSender<News>) {
    let mut last: Option<(RoleName, Instant)> = None;
    while let Ok(mut role) = asked.recv() {
        let listed = last.filter(|(of, _)| *of == role);
        let ago = listed.map(|(_, at)| at.elapsed());
        std::thread::sleep(ago.map_or(Duration::ZERO, |ago| LIST_EVERY.saturating_sub(ago)));
        while let Ok(later) = asked.try_recv() {
            role = later;
        }
        last = Some((role.clone(), Instant::now()));
        let request = Request::Points {
            role: Some(role.clone()),
        };
        let listed: Result<(_, Points)> = control.ask(&request);
        let points = match listed {
            Ok((_, mut points)) if !points.roles.is_empty() => Ok(Box::new(points.roles.remove(0))),
            Ok(_) => Err("the daemon does not know of any".to_owned()),
            Err(error) => Err(format!("could not {error:#}")),
        };
        if news.send(News::Points(role, points)).is_err() {
            return;
        }
    }
}

/// Reads keys until the terminal is gone.
pub fn keys(news: &SyncSender<News>) {
    loop {
        let said = match read() {
            Ok(Happened::Key(pressed)) => match key(&pressed) {
                Some(key) => News::Key(key),
                None => continue,
            },
            Ok(Happened::Resize(..)) => News::Resized,
            Ok(_) => continue,
            Err(_) => News::Deserted,
        };
        let ends = matches!(said, News::Deserted);
        if news.send(said).is_err() || ends {
            return;
        }
    }
}

fn key(pressed: &KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Some(match pressed.code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        KeyCode::Char('l') if control => Key::Anew,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char('q') => Key::Quit,
        KeyCode::Char('?') => Key::Help,
        KeyCode::Char('k') | KeyCode::Up => Key::Up,
        KeyCode::Char('j') | KeyCode::Down => Key::Down,
        KeyCode::Char('g') | KeyCode::Home => Key::First,
        KeyCode::Char('G') | KeyCode::End => Key::Last,
        KeyCode::Char(' ') | KeyCode::PageDown => Key::PageDown,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => Key::Open,
        KeyCode::Esc | KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => Key::Back,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let check = |code, modifiers, meant: Option<Key>| {
            assert_eq!(key(&KeyEvent::new(code, modifiers)), meant, "{code:?}");
        };
        let (plain, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        check(KeyCode::Char('q'), plain, Some(Key::Quit));
        check(KeyCode::Char('c'), control, Some(Key::Quit));
        check(KeyCode::Char('c'), plain, None);
        check(KeyCode::Char('l'), control, Some(Key::Anew));
        check(KeyCode::Char('l'), plain, Some(Key::Open));
        check(KeyCode::Char('q'), control, None);
        check(KeyCode::Char('G'), KeyModifiers::SHIFT, Some(Key::Last));
        check(KeyCode::Esc, plain, Some(Key::Back));
        check(KeyCode::F(1), plain, None);
    }
}
