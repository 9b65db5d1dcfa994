//! Counts what an outgoing stream carries, from the heads of its commands alone.
//!
//! Promise: costs next to nothing - file data is stepped over, never looked at - and holds at most one command's head. The
//! bytes come from our own kernel and are not judged: on anything that is not a send stream the counts stop rising, and
//! that is all.

use super::stream::{COMMAND_HEADER_BYTES, HEADER_BYTES, Kind, MAGIC, attr};

/// Enough of a command to see its path and lengths: the longest path, and what the kernel writes before the data.
const HEAD_BYTES_MAX: usize = COMMAND_HEADER_BYTES + 4096 + 256;

/// What went by so far.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The beginning of a head that was cut.
    head: Vec<u8>,
    /// Bytes to step over before the next command.
    skip: usize,
    /// 0 before the stream's header.
    version: u32,
    broken: bool,
    data_bytes: u64,
    commands: u64,
    file: Vec<u8>,
}

impl Scanner {
    pub fn new() -> Scanner {
        Scanner::default()
    }

    /// File data so far, in bytes as the files hold it; in a stream without data, what the real one would carry.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Commands so far.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// The file last written to, lossy; empty before the first.
    pub fn file(&self) -> String {
        String::from_utf8_lossy(&self.file).into_owned()
    }

    /// The next bytes of the stream, cut anywhere.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len());
                self.skip -= step;
                bytes = &bytes[step..];
            } else if self.head.is_empty() {
                match self.unit(bytes) {
                    Some(unit) => {
                        let step = unit.min(bytes.len());
                        self.skip = unit - step;
                        bytes = &bytes[step..];
                    }
                    None => {
                        let step = self.wanted(bytes).min(bytes.len());
                        self.head.extend_from_slice(&bytes[..step]);
                        bytes = &bytes[step..];
                    }
                }
            } else {
                let step = (self.wanted(&self.head) - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..step]);
                bytes = &bytes[step..];
                let head = std::mem::take(&mut self.head);
                match self.unit(&head) {
                    Some(unit) => self.skip = unit - head.len(),
                    None => self.head = head,
                }
            }
        }
    }

    /// How many bytes of a unit must be together, as far as `bytes` tells.
    fn wanted(&self, bytes: &[u8]) -> usize {
        if self.version == 0 {
            return HEADER_BYTES;
        }
        match bytes.split_first_chunk::<4>() {
            Some((length, _)) if bytes.len() >= COMMAND_HEADER_BYTES => {
                (COMMAND_HEADER_BYTES + u32::from_le_bytes(*length) as usize).min(HEAD_BYTES_MAX)
            }
            _ => COMMAND_HEADER_BYTES,
        }
    }

    /// Accounts for the unit that begins with `bytes`, when enough of it is there; gives its length.
    fn unit(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.version == 0 {
            let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
            let version = [head[13], head[14], head[15], head[16]];
            self.version = u32::from_le_bytes(version);
            self.broken = !head.starts_with(MAGIC) || self.version == 0;
            return Some(HEADER_BYTES);
        }
        let (head, payload) = bytes.split_first_chunk::<COMMAND_HEADER_BYTES>()?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let unit = COMMAND_HEADER_BYTES + length;
        let kind = Kind::of(u16::from_le_bytes([head[4], head[5]]));
        let counts = matches!(
            kind,
            Some(Kind::Write | Kind::EncodedWrite | Kind::UpdateExtent)
        );
        if counts {
            if bytes.len() < unit.min(HEAD_BYTES_MAX) {
                return None;
            }
            self.count(payload, length);
        }
        self.commands += 1;
        Some(unit)
    }

    /// `payload` is the beginning of `length` bytes of attributes.
    fn count(&mut self, mut payload: &[u8], length: usize) {
        let start = payload.len();
        while let Some((number, rest)) = payload.split_first_chunk::<2>() {
            let number = u16::from_le_bytes(*number);
            let walked = start - rest.len();
            if number == attr::DATA && self.version >= 2 {
                self.written(length.saturating_sub(walked) as u64);
                return;
            }
            let Some((value_length, rest)) = rest.split_first_chunk::<2>() else {
                return;
            };
            let value_length = usize::from(u16::from_le_bytes(*value_length));
            if number == attr::DATA {
                self.written(value_length as u64);
                return;
            }
            let Some((value, rest)) = rest.split_at_checked(value_length) else {
                return;
            };
            payload = rest;
            match (number, <[u8; 8]>::try_from(value)) {
                (attr::PATH, _) => {
                    self.file.clear();
                    self.file.extend_from_slice(value);
                }
                // An encoded write names its length in the file, and then carries data that must not count.
                (attr::UNENCODED_FILE_LEN | attr::SIZE, Ok(bytes)) => {
                    self.written(u64::from_le_bytes(bytes));
                    return;
                }
                _ => {}
            }
        }
    }

    fn written(&mut self, bytes: u64) {
        self.data_bytes = self.data_bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{Command, Encoded, Encoder};
    use super::*;

    fn stream(version: u32) -> (Vec<u8>, u64) {
        let mut stream = Encoder::new(version);
        let data = vec![7; 40_000];
        stream
            .put(&Command::Mkfile {
                path: b"a",
                inode: None,
            })
            .put(&Command::Write {
                path: b"a/long name",
                offset: 0,
                data: &data,
            })
            .put(&Command::Write {
                path: b"a",
                offset: 40_000,
                data: b"xyz",
            })
            .put(&Command::UpdateExtent {
                path: b"u",
                offset: 0,
                len: 1 << 40,
            });
        let mut sum = 40_003 + (1 << 40);
        if version >= 2 {
            stream.put(&Command::EncodedWrite(Encoded {
                path: b"last\xff",
                offset: 0,
                file_len: 100_000,
                len: 131_072,
                skip: 0,
                compression: 2,
                encryption: 0,
                data: &data,
            }));
            sum += 100_000;
        }
        stream.put(&Command::End);
        (stream.into_bytes(), sum)
    }

    fn check(version: u32, cut: usize, file: &str) {
        let (bytes, sum) = stream(version);
        let mut scanner = Scanner::new();
        for piece in bytes.chunks(cut) {
            scanner.push(piece);
        }
        assert_eq!(scanner.data_bytes(), sum, "version {version} cut {cut}");
        assert_eq!(scanner.commands(), 4 + u64::from(version));
        assert_eq!(scanner.file(), file);
    }

    #[test]
    fn cuts_do_not_matter() {
        for cut in [1, 2, 3, 7, 10, 16, 17, 18, 100, 4096, 5000, 65_536, 1 << 20] {
            check(1, cut, "u");
            check(2, cut, "last\u{fffd}");
        }
    }

    #[test]
    fn rubbish_is_not_counted() {
        let mut scanner = Scanner::new();
        scanner.push(&[0x5a; 100_000]);
        assert_eq!((scanner.data_bytes(), scanner.commands()), (0, 0));
        let mut scanner = Scanner::new();
        let mut bytes = Encoder::new(2).into_bytes();
        bytes.extend_from_slice(&[0xff; 1000]);
        scanner.push(&bytes);
        assert_eq!(scanner.data_bytes(), 0);
    }
}
