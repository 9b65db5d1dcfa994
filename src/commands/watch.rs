//! `standin status --watch` on a terminal: a picture that follows the daemon, and keys to look closer.
//!
//! Promise: calm - drawn when new figures come, once a second, and when a key is touched; only what changed is written. A
//! daemon that goes away leaves its last figures, marked as old, and is found again. The terminal is given back on every
//! way out. Nothing here changes anything in the daemon.
//!
//! It deliberately does not know how figures are worded: the renderings of the other verbs do.

mod feed;
mod model;
mod paint;
mod picture;
mod screen;

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};

use anyhow::Result;

use super::client::{self, Control};
use super::interrupt::Interrupts;
use super::status;
use crate::daemon::api::{Event, Status};
use crate::error::Code;
use crate::logic::name::RoleName;
use model::{Model, News, Wish};
use screen::Screen;

/// News that may wait to be drawn; more hold their sender back.
const NEWS_MAX: usize = 64;

/// A thread that brings news.
type Follow = Box<dyn FnOnce(&Control, &SyncSender<News>) + Send>;

/// Watches until somebody leaves, or a signal asks for it. None: this terminal can show no picture.
pub fn run(
    control: &Control,
    status: Status,
    role: Option<RoleName>,
    interrupts: &Interrupts,
) -> Result<Option<Code>> {
    if std::env::var_os("TERM").is_some_and(|kind| kind == "dumb") {
        return Ok(None);
    }
    let Ok(mut screen) = Screen::enter() else {
        return Ok(None);
    };
    let (news, heard) = sync_channel(NEWS_MAX);
    let (lister, asked) = sync_channel(1);
    let spawn = |follow: Follow| {
        let (control, news) = (control.clone(), news.clone());
        std::thread::spawn(move || follow(&control, &news));
    };
    spawn(Box::new(feed::follow));
    spawn(Box::new(move |control, news| {
        feed::list(control, &asked, news)
    }));
    spawn(Box::new(|_, news| feed::keys(news)));
    drop(news);

    let mut model = Model::new(status, role.clone());
    let mut wanted: Option<RoleName> = None;
    let mut wishes = vec![Wish::Draw];
    loop {
        if interrupts.count() > 0 || wishes.contains(&Wish::Leave) {
            return Ok(Some(Code::Done));
        }
        if wishes.contains(&Wish::Redraw) && !screen.clear()? {
            return Ok(Some(Code::Done));
        }
        if wishes.iter().any(|wish| *wish != Wish::Wait) {
            let mut room = (0, 1);
            if !screen.draw(|frame| room = picture::draw(frame, &model))? {
                return Ok(Some(Code::Done));
            }
            model.scroll = model.scroll.min(room.0);
            model.room = room;
        }
        for wish in wishes.drain(..) {
            if let Wish::Points(role) = wish {
                wanted = Some(role);
            }
        }
        // Full: a listing is under way, and this one is asked for after it.
        wanted = wanted.filter(|role| lister.try_send(role.clone()).is_err());
        let mut next = match heard.recv_timeout(client::TICK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(Some(Code::Done)),
        };
        // A picture is of all that was told, not of each: a slow terminal sees fewer.
        while let Some(said) = next {
            wishes.push(model.hear(about(said, role.as_ref())));
            next = heard.try_recv().ok();
        }
    }
}

/// News without what is not about the role that is watched.
fn about(news: News, role: Option<&RoleName>) -> News {
    match (news, role) {
        (News::Event(Event::Status { mut status }), Some(role)) => {
            match status::only(&mut status, role) {
                Ok(()) => News::Event(Event::Status { status }),
                Err(_) => News::Gone(format!("role {role} is not configured any more")),
            }
        }
        (news, _) => news,
    }
}
