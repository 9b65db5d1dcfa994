//! A terminal that only remembers: as much of an emulator as the program's own output needs.
//!
//! It deliberately knows no wide letters and no scrolling: what is drawn by places needs neither.

/// What is on the terminal, and what it was told beside.
pub struct Screen {
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    /// What came of an escape sequence or a letter that has not ended.
    pending: Vec<u8>,
    /// The other screen is on.
    pub other: bool,
    /// The cursor is shown.
    pub cursor: bool,
    /// A colour was asked for.
    pub coloured: bool,
    /// Bytes in all.
    pub bytes: usize,
    /// The clock in the first line, as often as it was another one.
    seen: Vec<String>,
}

impl Screen {
    pub fn new((columns, rows): (u16, u16)) -> Screen {
        Screen {
            rows: vec![vec![' '; columns.into()]; rows.into()],
            at: (0, 0),
            pending: Vec::new(),
            other: false,
            cursor: true,
            coloured: false,
            bytes: 0,
            seen: Vec::new(),
        }
    }

    pub fn resize(&mut self, (columns, rows): (u16, u16)) {
        self.rows = vec![vec![' '; columns.into()]; rows.into()];
    }

    /// The lines, without blanks at their ends.
    pub fn text(&self) -> String {
        let line = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_owned();
        let lines: Vec<String> = self.rows.iter().map(line).collect();
        lines.join("\n")
    }

    /// How many times the end of the first line changed.
    pub fn clocks(&self) -> usize {
        self.seen.len()
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        for byte in bytes {
            self.pending.push(*byte);
            self.take();
        }
        let first: String = self.rows.first().into_iter().flatten().collect();
        let clock = first.split(' ').next_back().unwrap_or_default().to_owned();
        if self.seen.last() != Some(&clock) {
            self.seen.push(clock);
        }
    }

    fn take(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        match pending.as_slice() {
            [b'\r'] => self.at.1 = 0,
            [b'\n'] => self.at = (self.at.0 + 1, self.at.1),
            [0x1b] | [0x1b, b'['] => self.pending = pending,
            [0x1b, b'[', .., last] if last.is_ascii_alphabetic() => {
                let numbers = String::from_utf8_lossy(&pending[2..pending.len() - 1]).into_owned();
                self.obey(*last, &numbers);
            }
            [0x1b, b'[', ..] => self.pending = pending,
            // Any other escape ends with its second byte.
            [0x1b, _] => {}
            letter => match std::str::from_utf8(letter) {
                Ok(text) => text.chars().for_each(|c| self.put(c)),
                Err(_) => self.pending = pending,
            },
        }
    }

    fn put(&mut self, c: char) {
        let (row, column) = self.at;
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = c;
        }
        self.at.1 += 1;
    }

    fn obey(&mut self, what: u8, numbers: &str) {
        match (what, numbers) {
            (b'h' | b'l', "?1049") => self.other = what == b'h',
            (b'h' | b'l', "?25") => self.cursor = what == b'h',
            (b'J', _) => self.rows.iter_mut().for_each(|row| row.fill(' ')),
            (b'H', _) => {
                let mut parts = numbers.split(';').map(|part| part.parse().unwrap_or(1));
                let mut next = || parts.next().unwrap_or(1_usize).max(1) - 1;
                self.at = (next(), next());
            }
            (b'm', _) => {
                let asks = |number: &str| matches!(number, "31" | "32" | "33" | "38" | "48");
                self.coloured |= numbers.split(';').any(asks);
            }
            _ => {}
        }
    }
}
