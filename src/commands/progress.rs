//! What goes on, while it goes on: bars on a terminal, plain lines elsewhere.
//!
//! Promise: a bar per dataset and peer with the exact total; as plain lines, one at the start and one at the end of each
//! transfer and at most one every ten seconds between. The figures are the daemon's; nothing is measured here.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::client::{Patience, Watcher};
use super::interrupt::Interrupts;
use super::output::{self, Output};
use super::render;
use crate::daemon::api::Event;
use crate::logic::name::RoleName;
use crate::logic::progress::{Direction, TransferView};
use crate::logic::units;

/// Seconds between two plain lines about one transfer.
const PLAIN_EVERY_S: f64 = 10.0;

/// Columns of a bar where there is room, and the narrowest one that still says something.
const BAR_COLUMNS: usize = 16;
const BAR_COLUMNS_MIN: usize = 4;

/// Follows work in the daemon and shows it in the way that fits the output.
pub struct Progress {
    view: View,
    /// Only events of this role are shown.
    role: Option<RoleName>,
    /// Whether sentences say which role they are about.
    many: bool,
    /// Warnings that the final answer may tell again: with the role's name, and without.
    held: Vec<(String, String)>,
    /// Transfers of that role that are under way.
    followed: HashSet<u64>,
    interrupts: Interrupts,
    on_interrupt: OnInterrupt,
}

/// What Ctrl-C means to the work.
pub enum OnInterrupt {
    Leave,
    /// Called once; the answer is then waited for. A second Ctrl-C leaves at once.
    Stop(Option<Box<dyn FnOnce() -> Result<()>>>),
}

enum View {
    Bars(Bars),
    Plain(Plain, Instant),
    Silent,
}

impl Progress {
    pub fn new(
        output: Output,
        role: Option<RoleName>,
        interrupts: Interrupts,
        on_interrupt: OnInterrupt,
    ) -> Progress {
        let view = if output.is_json() {
            View::Silent
        } else if output.is_live() && console::user_attended_stderr() {
            View::Bars(Bars::default())
        } else {
            View::Plain(Plain::default(), Instant::now())
        };
        Progress {
            view,
            many: role.is_none(),
            role,
            held: Vec::new(),
            followed: HashSet::new(),
            interrupts,
            on_interrupt,
        }
    }

    /// There is only one role: nobody needs to be told which.
    #[must_use]
    pub fn alone(mut self, alone: bool) -> Progress {
        self.many &= !alone;
        self
    }

    /// Takes the bars away, so that the result stands where they stood, and tells the warnings that it does not tell.
    pub fn finish(&mut self, result: &str) -> Result<()> {
        if let View::Bars(bars) = &mut self.view {
            bars.clear();
        }
        let silent = matches!(self.view, View::Silent);
        for (named, text) in std::mem::take(&mut self.held) {
            if !silent && !result.contains(&text) {
                output::write(format!("warning: {named}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// The event as it is shown now; none when it is not, or not yet.
    fn shown(&mut self, event: Event) -> Option<Event> {
        if !self.concerns(&event) {
            return None;
        }
        let name = |role: &Option<RoleName>, text: &str| match self.many {
            true => render::of_role(role.as_ref(), text),
            false => text.to_owned(),
        };
        Some(match event {
            Event::Note { at, role, text } => Event::Note {
                at,
                text: name(&role, &text),
                role,
            },
            // A failed step ends the cycle, whose answer tells it: with all its words, and once.
            Event::Warning { role, text, .. } if text.starts_with("could not ") => {
                self.held.push((name(&role, &text), text));
                return None;
            }
            Event::Warning { at, role, text } => Event::Warning {
                at,
                text: name(&role, &text),
                role,
            },
            other => other,
        })
    }

    pub fn interrupted(&self) -> bool {
        self.interrupts.count() > 0
    }

    fn concerns(&mut self, event: &Event) -> bool {
        let Some(role) = &self.role else { return true };
        match event {
            Event::Note { role: of, .. } | Event::Warning { role: of, .. } => {
                of.as_ref().is_none_or(|of| of == role)
            }
            Event::Transfer { transfer } => {
                let concerns = transfer.role == *role;
                if concerns {
                    self.followed.insert(transfer.id);
                }
                concerns
            }
            Event::TransferEnd { id, .. } => self.followed.remove(id),
            Event::Status { .. } | Event::Data { .. } => false,
        }
    }
}

impl Watcher for Progress {
    fn event(&mut self, event: Event) -> Result<()> {
        let Some(event) = self.shown(event) else {
            return Ok(());
        };
        match &mut self.view {
            View::Bars(bars) => bars.event(&event),
            View::Plain(plain, start) => {
                for line in plain.lines(start.elapsed().as_secs_f64(), &event) {
                    output::write(format!("{line}\n").as_bytes())?;
                }
                Ok(())
            }
            View::Silent => Ok(()),
        }
    }

    fn tick(&mut self) -> Result<Patience> {
        let count = self.interrupts.count();
        match &mut self.on_interrupt {
            _ if count == 0 => Ok(Patience::Wait),
            OnInterrupt::Leave => Ok(Patience::Leave),
            OnInterrupt::Stop(stop) => {
                if let Some(stop) = stop.take() {
                    stop()?;
                }
                Ok(if count > 1 {
                    Patience::Leave
                } else {
                    Patience::Wait
                })
            }
        }
    }
}

/// `web/files -> birch`.
pub fn title(t: &TransferView) -> String {
    let arrow = match t.direction {
        Direction::Sending => "->",
        Direction::Receiving => "<-",
    };
    format!("{}/{} {arrow} {}", t.role, t.dataset, t.peer)
}

struct Bars {
    all: MultiProgress,
    bars: HashMap<u64, ProgressBar>,
}

impl Default for Bars {
    fn default() -> Bars {
        Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5)),
            bars: HashMap::new(),
        }
    }
}

impl Bars {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Note { text, .. } => self.all.println(text)?,
            Event::Warning { text, .. } => {
                let word = console::style("warning:").yellow();
                self.all.println(format!("{word} {text}"))?;
            }
            Event::Transfer { transfer } => self.show(transfer),
            Event::TransferEnd { id, text, ok } => {
                if let Some(bar) = self.bars.remove(id) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                    self.all.println(ending(&bar.prefix(), *ok, text))?;
                }
            }
            Event::Status { .. } | Event::Data { .. } => {}
        }
        Ok(())
    }

    fn show(&mut self, t: &TransferView) {
        let bar = self.bars.entry(t.id).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(t.total_bytes));
            bar.set_prefix(title(t));
            bar
        });
        let columns = usize::from(console::Term::stderr().size().1);
        let (width, message) = layout(t, columns);
        let template = match width {
            0 => "{prefix} {msg}".to_owned(),
            width => format!("{{prefix}} [{{bar:{width}}}] {{msg}}"),
        };
        // The template is ours; a wrong one falls back to indicatif's own.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(message);
        bar.set_length(t.total_bytes);
        bar.set_position(t.done_bytes.min(t.total_bytes));
    }

    fn clear(&mut self) {
        for (_, bar) in self.bars.drain() {
            bar.finish_and_clear();
        }
    }
}

/// How wide the bar is, and what stands behind it, on a terminal of so many columns. The file name goes first, then the
/// bar shrinks, then the lesser figures go.
pub fn layout(t: &TransferView, columns: usize) -> (usize, String) {
    let room = columns.saturating_sub(title(t).chars().count() + 2);
    let figures = TransferView {
        file: String::new(),
        resumed_at: 0,
        bottleneck: None,
        ..t.clone()
    };
    let needed = render::transfer(&figures).chars().count();
    let bar = room.saturating_sub(needed + 3).min(BAR_COLUMNS);
    let bar = if bar < BAR_COLUMNS_MIN { 0 } else { bar };
    let taken = if bar == 0 { 0 } else { bar + 3 };
    (bar, render::transfer_within(t, room - taken))
}

fn ending(title: &str, ok: bool, text: &str) -> String {
    if ok {
        format!("{title}  {text}")
    } else {
        format!("{title}  {}", render::stopped(text))
    }
}

/// Events as lines of a log. Pure: the clock comes in.
#[derive(Default)]
struct Plain {
    /// Title of each running transfer, and when its last line was written.
    running: HashMap<u64, (String, f64)>,
}

impl Plain {
    fn lines(&mut self, now_s: f64, event: &Event) -> Vec<String> {
        match event {
            Event::Note { text, .. } => vec![text.clone()],
            Event::Warning { text, .. } => vec![format!("warning: {text}")],
            Event::Transfer { transfer } => self.transfer(now_s, transfer).into_iter().collect(),
            Event::TransferEnd { id, ok, text } => {
                let running = self.running.remove(id);
                let title = running.map_or_else(|| format!("transfer {id}"), |(title, _)| title);
                vec![ending(&title, *ok, text)]
            }
            Event::Status { .. } | Event::Data { .. } => vec![],
        }
    }

    fn transfer(&mut self, now_s: f64, t: &TransferView) -> Option<String> {
        if let Some((title, last_s)) = self.running.get_mut(&t.id) {
            if now_s - *last_s < PLAIN_EVERY_S {
                return None;
            }
            *last_s = now_s;
            return Some(format!("{title}  {}", render::transfer(t)));
        }
        let title = title(t);
        let whole = units::human_bytes(t.total_bytes);
        let from = match t.resumed_at {
            0 => String::new(),
            offset => format!(", resumed at {}", units::human_bytes(offset)),
        };
        let point = format!("{}.{}", t.point.epoch, t.point.sequence);
        let line = format!("{title}  {point} begins: {whole}{from}");
        self.running.insert(t.id, (title, now_s));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;
    use expect_test::{Expect, expect};

    fn transfer(done_bytes: u64) -> Event {
        let transfer = TransferView {
            done_bytes,
            ..samples::transfer()
        };
        Event::Transfer { transfer }
    }

    fn end(ok: bool, text: &str) -> Event {
        Event::TransferEnd {
            id: samples::transfer().id,
            ok,
            text: text.into(),
        }
    }

    fn check(events: &[(f64, Event)], lines: Expect) {
        let mut plain = Plain::default();
        let shown: Vec<String> = events
            .iter()
            .flat_map(|(now_s, event)| plain.lines(*now_s, event))
            .collect();
        lines.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn one_line_in_ten_seconds() {
        let mut events: Vec<(f64, Event)> = (0..110)
            .map(|tick| (f64::from(tick) * 0.25, transfer(1 << 30)))
            .collect();
        events.push((28.0, end(true, "2.0 GiB in 28s")));
        check(
            &events,
            expect![[r#"
                web/files -> birch  1.43 begins: 2.0 GiB, resumed at 512.0 MiB
                web/files -> birch   50 %  1.0 of 2.0 GiB  34.0 MiB/s  24s left  resumed at 512.0 MiB  the link is the slow side  var/www/video/intro.mp4
                web/files -> birch   50 %  1.0 of 2.0 GiB  34.0 MiB/s  24s left  resumed at 512.0 MiB  the link is the slow side  var/www/video/intro.mp4
                web/files -> birch  2.0 GiB in 28s"#]],
        );
    }

    #[test]
    fn an_end_that_was_cut() {
        check(
            &[
                (0.0, transfer(0)),
                (1.0, end(false, "send files to birch: the link went down")),
            ],
            expect![[r#"
                web/files -> birch  1.43 begins: 2.0 GiB, resumed at 512.0 MiB
                web/files -> birch  STOPPED: could not send files to birch: the link went down"#]],
        );
    }

    #[test]
    fn a_transfer_fits_the_terminal() {
        let t = samples::transfer();
        let line = |columns| {
            let (bar, message) = layout(&t, columns);
            let bar = match bar {
                0 => String::new(),
                bar => format!("[{}] ", "=".repeat(bar)),
            };
            format!("{} {bar}{message}", title(&t))
        };
        for columns in [70, 72, 80, 100, 132, 200] {
            assert!(line(columns).len() <= columns, "{}", line(columns));
        }
        expect!["web/files -> birch [==============]  61 %  1.2 of 2.0 GiB  34.0 MiB/s  24s left"]
            .assert_eq(&line(80));
    }

    #[test]
    fn warnings_that_the_answer_tells_are_told_once() {
        let warning = |text: &str| Event::Warning {
            at: samples::status().now,
            role: Some(samples::transfer().role),
            text: text.into(),
        };
        let mut progress = Progress {
            view: View::Silent,
            role: None,
            many: true,
            held: vec![],
            followed: HashSet::new(),
            interrupts: Interrupts::listen().unwrap(),
            on_interrupt: OnInterrupt::Leave,
        };
        assert_eq!(progress.shown(warning("could not send")), None);
        let shown = progress.shown(warning("a swap file is left out"));
        assert_eq!(shown, Some(warning("web: a swap file is left out")));
        assert_eq!(progress.held.len(), 1);
        progress.finish("could not send").unwrap();
        assert!(progress.held.is_empty());
    }
}
