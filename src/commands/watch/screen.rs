//! The terminal while a picture is on it: raw, on its other screen, without a cursor.
//!
//! Promise: it is given back as it was on every way out: when dropped, and before the words of a panic in any thread are
//! printed. Each picture is one write of what changed since the last, so nothing flickers and a slow line is not filled.
//! Only an end that cannot be noticed (SIGKILL) leaves it raw: `reset` mends that.

use std::io::{self, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal, prelude::CrosstermBackend};

use crate::commands::output;

/// Other screen on, cleared, cursor off; and back. https://invisible-island.net/xterm/ctlseqs/ctlseqs.html, DECSET.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// Whether the terminal is ours now.
static OURS: AtomicBool = AtomicBool::new(false);

pub struct Screen {
    terminal: Terminal<CrosstermBackend<Frames>>,
}

/// The bytes of one picture, until it is whole.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What the library writes when it is dropped comes after the terminal was given back; told that this failed on a
        // terminal that is gone, it would panic.
        if self.0.is_empty() || !OURS.load(Ordering::SeqCst) {
            self.0.clear();
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.0)?;
        self.0.clear();
        stdout.flush()
    }
}

impl Screen {
    /// Takes the terminal; an error leaves it as it was.
    pub fn enter() -> Result<Screen> {
        leave_before_panics();
        enable_raw_mode().context("have keys from the terminal")?;
        OURS.store(true, Ordering::SeqCst);
        let entered = output::write(ENTER).and_then(|()| {
            let backend = CrosstermBackend::new(Frames::default());
            Terminal::new(backend).context("learn the size of the terminal")
        });
        match entered {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                leave();
                Err(error)
            }
        }
    }

    /// Draws what is different. False: the terminal is gone, nobody looks any more.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> Result<bool> {
        if !OURS.load(Ordering::SeqCst) {
            bail!("go on showing the picture: a part of it broke down, as told above");
        }
        is_there(self.terminal.draw(picture).map(|_| ()))
    }

    /// Forgets what is on the terminal: the next picture is drawn whole.
    pub fn clear(&mut self) -> Result<bool> {
        is_there(self.terminal.clear())
    }
}

/// A terminal that hung up fails with EIO, one that was closed with EPIPE.
fn is_there(drawn: io::Result<()>) -> Result<bool> {
    match drawn {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
        Err(error) => Err(error).context("draw on the terminal"),
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back, once. A failure has nowhere to go: the terminal is gone then.
fn leave() {
    if OURS.swap(false, Ordering::SeqCst) {
        let _ = output::write(LEAVE);
        let _ = disable_raw_mode();
    }
}

/// The words of a panic belong on the screen that stays.
fn leave_before_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            told(panic);
        }));
    });
}
