//! Packing the data of a transfer: one continuing zstd stream, cut into frames. Plain code for blocking threads.
//!
//! Promise: what [`Packer`] packs, [`Unpacker`] unpacks, frame by frame, in order; each frame can be unpacked as soon as it
//! is there. The window lives across frames, so the ratio is near that of packing the whole. Data that do not pack go raw.
//! A frame that unpacks to more or less than it declared is an error found at a cost of at most [`DATA_BYTES_MAX`] + 1
//! bytes of output and a window of 8 MiB.
//!
//! How raw frames keep both ends in step: a raw frame enters neither the packer's nor the unpacker's window.
//!
//! It deliberately does not know what the data are, nor how frames travel.

use std::io;

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use super::frame::{DATA_BYTES_MAX, Frame};

/// log2 of the largest window the unpacker grants; level 19 uses that much, higher levels more.
const WINDOW_LOG_MAX: u32 = 23;

/// Levels offered: 20 and above need windows the other side refuses.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Frames shorter than this say nothing about how the data pack.
const TELLING_BYTES: usize = 4 * 1024;

/// Raw frames after the first poor result; doubled by each further one.
const SKIP_FIRST: u32 = 8;

/// Most raw frames between two tries.
const SKIP_MOST: u32 = 128;

/// The sending end.
pub struct Packer {
    encoder: Encoder<'static>,
    /// Room for the worst result.
    scratch: Vec<u8>,
    /// Frames still to go raw before packing is tried again.
    skip: u32,
    /// How many to skip after the next poor result.
    patience: u32,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packer(skip {})", self.skip)
    }
}

impl Packer {
    /// `level` as zstd counts, brought into 1 to 19.
    pub fn new(level: i32) -> io::Result<Packer> {
        let level = level.clamp(*LEVELS.start(), *LEVELS.end());
        let mut encoder = Encoder::new(level)?;
        // The link is encrypted and the stream hashed: a further checksum would only cost.
        encoder.set_parameter(CParameter::ChecksumFlag(false))?;
        Ok(Packer {
            encoder,
            scratch: vec![0; zstd::zstd_safe::compress_bound(DATA_BYTES_MAX) + 1024],
            skip: 0,
            patience: SKIP_FIRST,
        })
    }

    /// Packs 1 to [`DATA_BYTES_MAX`] bytes into a frame; 128 KiB is a good size.
    pub fn pack(&mut self, data: &[u8]) -> io::Result<Frame> {
        let packed = self.try_pack(data)?;
        Ok(packed.unwrap_or_else(|| Frame::Raw(data.to_vec())))
    }

    /// The same of data that nobody else needs: they are not copied where they go raw.
    pub fn pack_whole(&mut self, data: Vec<u8>) -> io::Result<Frame> {
        let packed = self.try_pack(&data)?;
        Ok(packed.unwrap_or(Frame::Raw(data)))
    }

    /// None where it is to go raw.
    fn try_pack(&mut self, data: &[u8]) -> io::Result<Option<Frame>> {
        if data.is_empty() || data.len() > DATA_BYTES_MAX {
            let what = format!("{} bytes do not make a frame", data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(None);
        }
        let packed = self.compress(data)?;
        if data.len() >= TELLING_BYTES {
            self.judge(data.len(), packed.len());
        }
        // Even a poor result is sent as it is: the encoder has these bytes in its window, so the decoder needs them too.
        Ok(Some(Frame::Zstd {
            unpacked: data.len() as u32,
            packed,
        }))
    }

    fn compress(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        let mut input = InBuffer::around(data);
        let mut output = OutBuffer::around(&mut self.scratch[..]);
        while input.pos() < data.len() {
            let before = (input.pos(), output.pos());
            self.encoder.run(&mut input, &mut output)?;
            if (input.pos(), output.pos()) == before {
                return Err(io::Error::other("zstd makes no progress"));
            }
        }
        while self.encoder.flush(&mut output)? > 0 {
            if output.pos() == output.capacity() {
                return Err(io::Error::other("zstd made more than its bound"));
            }
        }
        Ok(output.as_slice().to_vec())
    }

    /// Less than 5 % gained: send raw for a while, longer each time. A good result ends the doubt.
    fn judge(&mut self, before: usize, after: usize) {
        if after * 20 > before * 19 {
            self.skip = self.patience;
            self.patience = (self.patience * 2).min(SKIP_MOST);
        } else {
            self.patience = SKIP_FIRST;
        }
    }
}

/// Why a frame does not unpack.
#[derive(Debug, thiserror::Error)]
pub enum BadData {
    #[error("a frame unpacks to more than the {0} bytes it declares")]
    TooLong(u32),
    #[error("a frame unpacks to {got} bytes and declares {declared}")]
    TooShort { got: usize, declared: u32 },
    #[error("the packed stream ends inside the transfer")]
    Ended,
    #[error("damaged data: {0}")]
    Damaged(#[source] io::Error),
    #[error("not a data frame")]
    NotData,
}

/// The receiving end. After an error it is of no further use.
pub struct Unpacker {
    decoder: Decoder<'static>,
    /// One byte more than a frame may hold, so that too much is seen.
    data: Vec<u8>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unpacker")
    }
}

impl Unpacker {
    pub fn new() -> io::Result<Unpacker> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Unpacker {
            decoder,
            data: vec![0; DATA_BYTES_MAX + 1],
        })
    }

    /// The data of the next frame, 1 to [`DATA_BYTES_MAX`] bytes; valid until the next call.
    pub fn unpack<'a>(&'a mut self, frame: &'a Frame) -> Result<&'a [u8], BadData> {
        match frame {
            Frame::Raw(data) => Ok(data),
            Frame::Zstd { unpacked, packed } => self.decompress(*unpacked, packed),
            Frame::Message(_) | Frame::Unpacked { .. } | Frame::End => Err(BadData::NotData),
        }
    }

    fn decompress(&mut self, declared: u32, packed: &[u8]) -> Result<&[u8], BadData> {
        let want = (declared as usize).min(DATA_BYTES_MAX);
        let mut input = InBuffer::around(packed);
        let mut output = OutBuffer::around(&mut self.data[..=want]);
        loop {
            let before = (input.pos(), output.pos());
            let hint = self
                .decoder
                .run(&mut input, &mut output)
                .map_err(BadData::Damaged)?;
            if output.pos() > want {
                return Err(BadData::TooLong(declared));
            }
            if hint == 0 {
                return Err(BadData::Ended);
            }
            if (input.pos(), output.pos()) == before {
                break;
            }
        }
        let got = output.pos();
        if input.pos() < packed.len() || got < declared as usize {
            return Err(BadData::TooShort { got, declared });
        }
        Ok(&self.data[..got])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text-like data that pack well across frames, or noise that does not.
    fn sample(bytes: usize, seed: u64, noise: bool) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let words: Vec<[u8; 8]> = (0..200).map(|_| next().to_le_bytes()).collect();
        let mut data = Vec::with_capacity(bytes + 8);
        while data.len() < bytes {
            let draw = next();
            if noise {
                data.extend_from_slice(&draw.to_le_bytes());
            } else {
                data.extend_from_slice(&words[draw as usize % words.len()]);
            }
        }
        data.truncate(bytes);
        data
    }

    /// Packs and unpacks, and gives the bytes that travelled.
    fn round_trip(data: &[u8], piece: usize, level: i32) -> usize {
        let mut packer = Packer::new(level).unwrap();
        let mut whole = Packer::new(level).unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        let mut wire = 0;
        for chunk in data.chunks(piece) {
            let frame = packer.pack(chunk).unwrap();
            wire += frame.wire_bytes();
            frame.encode(&mut Vec::new()).unwrap();
            assert_eq!(unpacker.unpack(&frame).unwrap(), chunk);
            // Both ways to pack are one.
            let again = whole.pack_whole(chunk.to_vec()).unwrap();
            assert_eq!(again, frame);
        }
        wire
    }

    #[test]
    fn every_level_can_be_unpacked() {
        let data = sample(3 << 20, 1, false);
        for level in [-5, 1, 3, 9, 19, 99] {
            assert!(round_trip(&data, 128 * 1024, level) < data.len() / 2);
        }
    }

    #[test]
    fn the_ratio_is_near_that_of_the_whole() {
        let data = sample(4 << 20, 7, false);
        let whole = zstd::bulk::compress(&data, 3).unwrap().len();
        let cut = round_trip(&data, 128 * 1024, 3);
        assert!(cut < whole + whole / 20, "{cut} against {whole}");
    }

    #[test]
    fn the_window_lives_across_frames() {
        let mut page = sample(32 * 1024, 3, true);
        page.resize(64 * 1024, 0);
        let twice = [&page[..], &page[..]].concat();
        assert!(round_trip(&twice, 64 * 1024, 3) < 36 * 1024);
    }

    #[test]
    fn noise_goes_raw_and_costs_nothing() {
        let noise = sample(16 << 20, 5, true);
        let wire = round_trip(&noise, 128 * 1024, 3);
        assert!(wire < noise.len() + noise.len() / 1000, "{wire}");
        let mut packer = Packer::new(3).unwrap();
        let raw = noise
            .chunks(128 * 1024)
            .filter(|chunk| matches!(packer.pack(chunk).unwrap(), Frame::Raw(_)))
            .count();
        assert!(raw > 115, "{raw} of 128 went raw");
    }

    #[test]
    fn packing_is_found_again_after_noise() {
        let mut data = sample(8 << 20, 5, true);
        data.extend(sample(32 << 20, 6, false));
        let wire = round_trip(&data, 128 * 1024, 3);
        assert!(wire < (8 << 20) + (26 << 20), "{wire}");
    }

    #[test]
    fn sizes_that_make_no_frame() {
        let mut packer = Packer::new(3).unwrap();
        assert!(packer.pack(&[]).is_err());
        assert!(packer.pack(&vec![0; DATA_BYTES_MAX + 1]).is_err());
        assert!(packer.pack(&vec![0; DATA_BYTES_MAX]).is_ok());
    }

    fn refuse(frame: &Frame, what: &str) {
        let mut unpacker = Unpacker::new().unwrap();
        let error = unpacker.unpack(frame).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn a_bomb_costs_nothing() {
        let packed = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
        let bomb = |unpacked| Frame::Zstd {
            unpacked,
            packed: packed.clone(),
        };
        refuse(&bomb(1), "more than the 1 bytes");
        refuse(&bomb(DATA_BYTES_MAX as u32), "more than the 262144 bytes");
        refuse(&bomb(u32::MAX), "more than");
    }

    #[test]
    fn a_wide_window_is_refused() {
        let mut encoder = Encoder::new(3).unwrap();
        encoder.set_parameter(CParameter::WindowLog(27)).unwrap();
        let mut packed = vec![0; 4096];
        let mut output = OutBuffer::around(&mut packed[..]);
        encoder
            .run(&mut InBuffer::around(b"words"), &mut output)
            .unwrap();
        encoder.flush(&mut output).unwrap();
        let packed = output.as_slice().to_vec();
        refuse(
            &Frame::Zstd {
                unpacked: 5,
                packed,
            },
            "damaged",
        );
    }

    #[test]
    fn lies_about_the_length() {
        let mut packer = Packer::new(3).unwrap();
        let Frame::Zstd { packed, .. } = packer.pack(b"twelve bytes").unwrap() else {
            panic!("the first frame is packed")
        };
        refuse(
            &Frame::Zstd {
                unpacked: 11,
                packed: packed.clone(),
            },
            "more than the 11",
        );
        refuse(
            &Frame::Zstd {
                unpacked: 13,
                packed: packed.clone(),
            },
            "unpacks to 12 bytes",
        );
        let short = packed[..packed.len() - 3].to_vec();
        refuse(
            &Frame::Zstd {
                unpacked: 12,
                packed: short,
            },
            "and declares 12",
        );
        let whole = zstd::bulk::compress(b"twelve bytes", 3).unwrap();
        refuse(
            &Frame::Zstd {
                unpacked: 12,
                packed: whole,
            },
            "ends inside",
        );
        refuse(&Frame::End, "not a data frame");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_cut_survives(
            runs in proptest::collection::vec((1usize..200_000, any::<u64>(), any::<bool>()), 1..5),
            piece in 1000usize..DATA_BYTES_MAX,
        ) {
            let data: Vec<u8> = runs.iter().flat_map(|&(bytes, seed, noise)| sample(bytes, seed, noise)).collect();
            round_trip(&data, piece, 3);
        }

        #[test]
        fn hostile_data_are_refused_or_bounded(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            seed in any::<u64>(),
        ) {
            let mut packer = Packer::new(3).unwrap();
            let mut unpacker = Unpacker::new().unwrap();
            for chunk in sample(100_000, seed, false).chunks(20_000) {
                let Frame::Zstd { unpacked, mut packed } = packer.pack(chunk).unwrap() else { continue };
                for (place, byte) in &damage {
                    let place = place.index(packed.len());
                    packed[place] ^= byte;
                }
                match unpacker.unpack(&Frame::Zstd { unpacked, packed }) {
                    Ok(data) => prop_assert_eq!(data.len(), unpacked as usize),
                    Err(_) => break,
                }
            }
        }
    }
}
