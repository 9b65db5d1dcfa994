//! The picture of a [`Model`]: which pages there are, their first line, their last line, and what lies between.
//!
//! Promise: pure; any size of a terminal is drawn, down to none. What does not fit is counted, never silently cut: first
//! events go, then links, then what belongs to the peers of roles; roles and what needs attention stay. Whatever a colour
//! says, a word or a sign says too.

mod overview;
mod role;
mod sections;

#[cfg(test)]
mod tests;

use console::{measure_text_width, style, truncate_str};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Paragraph;

use super::model::{Model, Page};
use super::paint;
use crate::commands::human;
use crate::commands::render;
use crate::daemon::api::EventView;

/// Draws the model; and how far its page can be scrolled, and by how much at once.
pub fn draw(frame: &mut Frame, model: &Model) -> (usize, usize) {
    let area = frame.area();
    let (rows, columns) = (usize::from(area.height), usize::from(area.width));
    let mut above = vec![first_line(model, columns)];
    above.extend(old_lines(model, columns));
    let keys = render_keys(model);
    // Between the first lines and the keys; a blank line above it where there is room.
    let free = rows.saturating_sub(above.len() + 1);
    if free > 8 {
        above.push(String::new());
    }
    let free = rows.saturating_sub(above.len() + 1);
    let (body, room) = match model.page {
        Page::Overview => (overview::lines(model, free, columns), (0, 1)),
        Page::Role => scrolled(&role::lines(model, columns), model.scroll, free),
        Page::Help => scrolled(&help(columns), model.scroll, free),
    };
    let mut lines = above;
    lines.extend(body);
    lines.resize(rows.saturating_sub(1), String::new());
    lines.push(keys);
    lines.truncate(rows.max(1));
    let cut: Vec<String> = lines
        .iter()
        .map(|line| truncate_str(line, columns, "...").into_owned())
        .collect();
    let painted = paint::lines(cut.iter().map(String::as_str));
    frame.render_widget(Paragraph::new(painted), Rect { ..area });
    room
}

/// The node on the left, its clock on the right.
fn first_line(model: &Model, columns: usize) -> String {
    let status = &model.status;
    let left = render::node_line(status);
    let clock = human::clock(status.now);
    let clock = match model.old {
        None => clock,
        Some(_) => format!("OLD, of {clock}"),
    };
    let used = measure_text_width(&left) + clock.len();
    let blanks = " ".repeat(columns.saturating_sub(used));
    match used < columns {
        true => format!("{left}{blanks}{clock}"),
        false => left,
    }
}

/// That nothing below is of now, and why.
fn old_lines(model: &Model, columns: usize) -> Vec<String> {
    let Some(why) = &model.old else {
        return vec![];
    };
    let at = human::clock(model.status.now);
    let said = format!("! {why}; all below is of {at}. Waiting for the daemon.");
    let said = style(said).red().to_string();
    render::fitted(&said, columns)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn render_keys(model: &Model) -> String {
    let keys = match model.page {
        Page::Overview if model.status.roles.is_empty() => "?  help   q  quit",
        Page::Overview => "up/down  choose   enter  details   ?  help   q  quit",
        Page::Role => "esc  back   up/down  scroll   ?  help   q  quit",
        Page::Help => "esc  back   q  quit",
    };
    style(keys).bold().to_string()
}

/// The part of a page that is on the terminal, its last line counting what is below; and the room.
fn scrolled(lines: &[String], scroll: usize, rows: usize) -> (Vec<String>, (usize, usize)) {
    if lines.len() <= rows || rows < 2 {
        return (lines.iter().take(rows).cloned().collect(), (0, 1));
    }
    let shown = rows - 1;
    let most = lines.len() - shown;
    let from = scroll.min(most);
    let mut part = lines[from..from + shown].to_vec();
    part.push(match lines.len() - from - shown {
        0 => format!("... the end; {} above", human::count(from, "line")),
        below => format!("... {} more", human::count(below, "line")),
    });
    (part, (most, shown))
}

/// `12:35:45  web: took point 1.43`; what needs a look has a sign.
fn event_line(event: &EventView, model: &Model) -> String {
    let at = human::moment(event.at, model.status.now);
    let text = render::of_role(event.role.as_ref(), first(&event.text));
    match event.warning {
        true => format!("  {at}  {}", style(format!("! {text}")).yellow()),
        false => format!("  {at}  {text}"),
    }
}

/// A failure without its hint.
fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn help(columns: usize) -> Vec<String> {
    let text = "\
keys
  up, down, k, j      choose a role; scroll its details
  enter, right, l     details of the role: peers, points, events
  esc, left, h        back
  page up, page down  scroll by a screen
  home, end, g, G     to the first or the last
  ctrl-l              draw everything anew
  q, ctrl-c           quit; nothing that runs is stopped by it

words
  exposure   what would be lost if that peer took over now
  points     snapshots to go back to; 1.43 is the 43rd of term 1
  behind     points that the peer does not have yet
  hand-over  how long nobody would be served while it takes over in order
  !          somebody should look at it

more
  standin status ROLE    the same once, as text; --json for programs
  standin points ROLE    every point
  standin check          looks for what is wrong, and says what to do";
    render::fitted(text, columns)
        .lines()
        .map(str::to_owned)
        .collect()
}
