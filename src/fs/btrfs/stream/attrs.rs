//! The attributes of one command: cut apart, each at most once, each read with the one size it may have.
//!
//! It deliberately does not know what a command needs; `parser` asks for that.

use uuid::Uuid;

use super::{Moment, attr};

/// Longest path, link target included, in bytes (PATH_MAX with its final zero).
const PATH_BYTES_MAX: usize = 4095;

/// Longest name of an extended attribute, in bytes (XATTR_NAME_MAX).
const XATTR_NAME_BYTES_MAX: usize = 255;

/// Attributes above this number are of a format not known yet; they carry a length and are skipped.
const KNOWN: usize = attr::VERITY_SIGNATURE as usize;

/// The attributes of one command, borrowed from its payload.
pub(super) struct Attrs<'a> {
    values: [Option<&'a [u8]>; KNOWN + 1],
}

impl<'a> Attrs<'a> {
    pub fn cut(version: u32, mut payload: &'a [u8]) -> Result<Attrs<'a>, String> {
        let mut values = [None; KNOWN + 1];
        while !payload.is_empty() {
            let (number, rest) = take_u16(payload).ok_or("attribute is cut short")?;
            let value;
            if number == attr::DATA && version >= 2 {
                (value, payload) = (rest, &rest[rest.len()..]);
            } else {
                let (length, rest) = take_u16(rest).ok_or("attribute is cut short")?;
                let length = usize::from(length);
                if length > rest.len() {
                    return Err(format!("attribute {number} is longer than the command"));
                }
                (value, payload) = rest.split_at(length);
            }
            if number == 0 {
                return Err("attribute number 0".into());
            }
            if let Some(slot) = values.get_mut(usize::from(number)) {
                if slot.replace(value).is_some() {
                    return Err(format!("attribute {number} is there twice"));
                }
            }
        }
        Ok(Attrs { values })
    }

    pub fn bytes(&self, number: u16) -> Result<&'a [u8], String> {
        self.values[usize::from(number)].ok_or_else(|| format!("attribute {number} is missing"))
    }

    fn fixed<const N: usize>(&self, number: u16) -> Result<[u8; N], String> {
        let value = self.bytes(number)?;
        value.try_into().map_err(|_| {
            format!(
                "attribute {number} has {} bytes instead of {N}",
                value.len()
            )
        })
    }

    pub fn u32(&self, number: u16) -> Result<u32, String> {
        self.fixed(number).map(u32::from_le_bytes)
    }

    /// For attributes that newer kernels leave out when they are zero.
    pub fn u32_or_zero(&self, number: u16) -> Result<u32, String> {
        match self.values[usize::from(number)] {
            Some(_) => self.u32(number),
            None => Ok(0),
        }
    }

    pub fn u64(&self, number: u16) -> Result<u64, String> {
        self.fixed(number).map(u64::from_le_bytes)
    }

    /// For attributes that a stream may leave out.
    pub fn u64_if_any(&self, number: u16) -> Result<Option<u64>, String> {
        self.values[usize::from(number)]
            .map(|_| self.u64(number))
            .transpose()
    }

    pub fn uuid(&self, number: u16) -> Result<Uuid, String> {
        self.fixed(number).map(Uuid::from_bytes)
    }

    pub fn moment(&self, number: u16) -> Result<Moment, String> {
        let bytes: [u8; 12] = self.fixed(number)?;
        let (seconds, nanoseconds) = bytes.split_at(8);
        let moment = Moment {
            seconds: i64::from_le_bytes(seconds.try_into().unwrap_or_default()),
            nanoseconds: u32::from_le_bytes(nanoseconds.try_into().unwrap_or_default()),
        };
        if moment.nanoseconds >= 1_000_000_000 {
            return Err(format!("attribute {number} is not a time"));
        }
        Ok(moment)
    }

    fn bounded(&self, number: u16, bytes_max: usize) -> Result<&'a [u8], String> {
        let value = self.bytes(number)?;
        if value.len() > bytes_max {
            return Err(format!("attribute {number} has {} bytes", value.len()));
        }
        Ok(value)
    }

    /// A path; may be empty.
    pub fn path(&self, number: u16) -> Result<&'a [u8], String> {
        self.bounded(number, PATH_BYTES_MAX)
    }

    pub fn xattr_name(&self) -> Result<&'a [u8], String> {
        let name = self.bounded(attr::XATTR_NAME, XATTR_NAME_BYTES_MAX)?;
        if name.is_empty() || name.contains(&0) {
            return Err("name of an extended attribute is empty or holds a zero byte".into());
        }
        Ok(name)
    }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*head), rest))
}
