//! Frames: how messages and data lie in a stream of bytes. Pure encoding and decoding.
//!
//!     u8 kind, u32 length (big endian), payload
//!     1 message   JSON
//!     2 raw       data as they are
//!     3 zstd      u32 unpacked length (big endian), then the next piece of one continuing zstd stream
//!     4 end       empty: nothing follows, and that is on purpose (a stream that stops without it was cut)
//!     5 unpacked  u32 bytes on the wire (big endian), then data as they are: only from a link's worker to the daemon
//!
//! Between nodes kind 5 is refused; from a worker kind 3 is ([`Dialect`]), so that the daemon never unpacks.
//!
//! Promise: whatever bytes arrive, the decoder neither panics nor allocates more than about twice what has arrived (from a
//! process of this node: one frame of data more), up to the limit of the frame's kind; a frame that breaks a limit is refused when its head is read.
//!
//! It deliberately does not know sockets, nor what the JSON or the data mean.

use super::message::MESSAGE_BYTES_MAX;

/// Most data in one frame, unpacked, in bytes.
pub const DATA_BYTES_MAX: usize = 256 * 1024;

/// Largest payload of a zstd frame, in bytes: data that do not pack grow by a few bytes a block.
pub const PACKED_BYTES_MAX: usize = DATA_BYTES_MAX + 1024;

/// Kind and length.
const HEAD_BYTES: usize = 5;

/// The further length of a frame that has two: unpacked in a zstd frame, on the wire in an unpacked one.
const UNPACKED_BYTES: usize = 4;

/// The first allocation for a payload; beyond it the buffer grows with what has arrived.
const FIRST_BYTES: usize = 32 * 1024;

const MESSAGE: u8 = 1;
const RAW: u8 = 2;
const ZSTD: u8 = 3;
const END: u8 = 4;
const UNPACKED: u8 = 5;

/// Which kinds may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Between nodes.
    Wire,
    /// From a link's worker to the daemon.
    Inside,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Message(Vec<u8>),
    /// Data as they are: 1 to [`DATA_BYTES_MAX`] bytes.
    Raw(Vec<u8>),
    /// The next piece of the zstd stream; it unpacks to exactly `unpacked` bytes.
    Zstd { unpacked: u32, packed: Vec<u8> },
    /// What a zstd frame unpacked to, and how many bytes that frame was.
    Unpacked { wire: u32, data: Vec<u8> },
    /// Nothing follows.
    End,
}

/// What the bytes broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("a frame of kind {kind} says {length} bytes, allowed are {min} to {max}")]
    Length {
        kind: u8,
        length: usize,
        min: usize,
        max: usize,
    },
}

impl Frame {
    /// Bytes of the whole frame on the wire.
    pub fn wire_bytes(&self) -> usize {
        HEAD_BYTES
            + match self {
                Frame::Message(payload) | Frame::Raw(payload) => payload.len(),
                Frame::Zstd { packed, .. } => UNPACKED_BYTES + packed.len(),
                Frame::Unpacked { wire, .. } => return *wire as usize,
                Frame::End => 0,
            }
    }

    /// The data, where they need no unpacking.
    pub fn data(&self) -> Option<&[u8]> {
        match self {
            Frame::Raw(data) | Frame::Unpacked { data, .. } => Some(data),
            Frame::Message(_) | Frame::Zstd { .. } | Frame::End => None,
        }
    }

    /// As [`Frame::data`], for whoever keeps it.
    pub fn into_data(self) -> Option<Vec<u8>> {
        match self {
            Frame::Raw(data) | Frame::Unpacked { data, .. } => Some(data),
            Frame::Message(_) | Frame::Zstd { .. } | Frame::End => None,
        }
    }

    /// Bytes of data this frame carries, unpacked.
    pub fn data_bytes(&self) -> usize {
        match self {
            Frame::Raw(data) | Frame::Unpacked { data, .. } => data.len(),
            Frame::Zstd { unpacked, .. } => *unpacked as usize,
            Frame::Message(_) | Frame::End => 0,
        }
    }

    /// Appends the frame to `out`. A frame the other side would refuse is refused here.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), BadFrame> {
        let payload = self.encode_head(out)?;
        out.extend_from_slice(payload);
        Ok(())
    }

    /// The same without the payload, which is given: it need not be copied to be written.
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<&[u8], BadFrame> {
        let (kind, unpacked, payload): (u8, Option<u32>, &[u8]) = match self {
            Frame::Message(payload) => (MESSAGE, None, payload),
            Frame::Raw(payload) => (RAW, None, payload),
            Frame::Zstd { unpacked, packed } => (ZSTD, Some(*unpacked), packed),
            Frame::Unpacked { wire, data } => (UNPACKED, Some(*wire), data),
            Frame::End => (END, None, &[]),
        };
        let length = payload.len() + unpacked.map_or(0, |_| UNPACKED_BYTES);
        check_length(kind, length, MESSAGE_BYTES_MAX)?;
        out.reserve(HEAD_BYTES + UNPACKED_BYTES);
        out.push(kind);
        out.extend_from_slice(&(length as u32).to_be_bytes());
        if let Some(unpacked) = unpacked {
            check_further(kind, unpacked as usize)?;
            out.extend_from_slice(&unpacked.to_be_bytes());
        }
        Ok(payload)
    }
}

/// Payloads can be secrets and are large: only kinds and lengths are printed.
impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Frame::Message(payload) => write!(f, "Message({} B)", payload.len()),
            Frame::Raw(data) => write!(f, "Raw({} B)", data.len()),
            Frame::Zstd { unpacked, packed } => {
                write!(f, "Zstd({} B of {unpacked} B)", packed.len())
            }
            Frame::Unpacked { wire, data } => {
                write!(f, "Unpacked({} B from {wire} B)", data.len())
            }
            Frame::End => write!(f, "End"),
        }
    }
}

fn check_length(kind: u8, length: usize, message_max: usize) -> Result<(), BadFrame> {
    let (min, max) = match kind {
        MESSAGE => (1, message_max),
        RAW => (1, DATA_BYTES_MAX),
        ZSTD => (UNPACKED_BYTES + 1, UNPACKED_BYTES + PACKED_BYTES_MAX),
        UNPACKED => (UNPACKED_BYTES + 1, UNPACKED_BYTES + DATA_BYTES_MAX),
        END => (0, 0),
        _ => return Err(BadFrame::Kind(kind)),
    };
    if (min..=max).contains(&length) {
        return Ok(());
    }
    Err(BadFrame::Length {
        kind,
        length,
        min,
        max,
    })
}

/// The second length: of what a zstd frame unpacks to, or of the whole frame that was unpacked.
fn check_further(kind: u8, length: usize) -> Result<(), BadFrame> {
    let max = match kind {
        ZSTD => DATA_BYTES_MAX,
        _ => HEAD_BYTES + UNPACKED_BYTES + PACKED_BYTES_MAX,
    };
    if (1..=max).contains(&length) {
        return Ok(());
    }
    Err(BadFrame::Length {
        kind,
        length,
        min: 1,
        max,
    })
}

/// Puts frames together from bytes as they come. Ask for [`Decoder::space`], write into it, say how much with
/// [`Decoder::filled`]. It never asks for a byte beyond the present frame, so what follows the last frame on a connection
/// can be read by somebody else.
#[derive(Debug)]
pub struct Decoder {
    dialect: Dialect,
    message_max: usize,
    head: [u8; HEAD_BYTES + UNPACKED_BYTES],
    /// The first allocation for a payload.
    first: usize,
    /// Bytes of `head` that have arrived.
    head_bytes: usize,
    /// Bytes of `payload` that have arrived.
    arrived: usize,
    payload: Vec<u8>,
    body: Option<Body>,
}

/// A head that was read and found good.
#[derive(Debug, Clone, Copy)]
struct Body {
    kind: u8,
    /// Bytes of payload to come, without the further length.
    bytes: usize,
    /// The further length, of the kinds that have one.
    unpacked: u32,
}

impl Decoder {
    /// A decoder that refuses messages larger than `message_max` bytes.
    pub fn new(message_max: usize) -> Decoder {
        Decoder {
            dialect: Dialect::Wire,
            message_max: message_max.min(MESSAGE_BYTES_MAX),
            head: [0; HEAD_BYTES + UNPACKED_BYTES],
            first: FIRST_BYTES,
            head_bytes: 0,
            arrived: 0,
            payload: Vec::new(),
            body: None,
        }
    }

    /// Has room made for a whole frame of data when its head has come: for what comes from this node's own processes.
    pub fn expect_whole(&mut self) {
        self.first = PACKED_BYTES_MAX;
    }

    /// From the next head on.
    pub fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// The limit for messages whose head has not been read yet.
    pub fn set_message_max(&mut self, message_max: usize) {
        self.message_max = message_max.min(MESSAGE_BYTES_MAX);
    }

    /// No byte of a frame is waiting for the rest of it.
    pub fn at_boundary(&self) -> bool {
        self.head_bytes == 0
    }

    /// Where the next bytes belong; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        let Some(body) = self.body else {
            let want = self.head_want();
            return &mut self.head[self.head_bytes..want];
        };
        if self.arrived == self.payload.len() {
            let grown = (self.payload.len() * 2).max(self.first).min(body.bytes);
            self.payload.reserve_exact(grown - self.payload.len());
            self.payload.resize(grown, 0);
        }
        &mut self.payload[self.arrived..]
    }

    /// `bytes` of the space were written. A frame when it is complete.
    pub fn filled(&mut self, bytes: usize) -> Result<Option<Frame>, BadFrame> {
        if self.body.is_none() {
            self.head_bytes = (self.head_bytes + bytes).min(self.head_want());
            self.body = self.parse_head()?;
        } else {
            self.arrived = (self.arrived + bytes).min(self.payload.len());
        }
        match self.body {
            Some(body) if self.arrived == body.bytes => Ok(Some(self.take(body))),
            _ => Ok(None),
        }
    }

    /// Bytes of head needed, as far as is known.
    fn head_want(&self) -> usize {
        if self.head_bytes >= HEAD_BYTES && matches!(self.head[0], ZSTD | UNPACKED) {
            HEAD_BYTES + UNPACKED_BYTES
        } else {
            HEAD_BYTES
        }
    }

    fn parse_head(&self) -> Result<Option<Body>, BadFrame> {
        if self.head_bytes < HEAD_BYTES {
            return Ok(None);
        }
        let [kind, a, b, c, d, e, f, g, h] = self.head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let foreign = match self.dialect {
            Dialect::Wire => UNPACKED,
            Dialect::Inside => ZSTD,
        };
        if kind == foreign {
            return Err(BadFrame::Kind(kind));
        }
        check_length(kind, length, self.message_max)?;
        if !matches!(kind, ZSTD | UNPACKED) {
            return Ok(Some(Body {
                kind,
                bytes: length,
                unpacked: 0,
            }));
        }
        if self.head_bytes < HEAD_BYTES + UNPACKED_BYTES {
            return Ok(None);
        }
        let unpacked = u32::from_be_bytes([e, f, g, h]);
        check_further(kind, unpacked as usize)?;
        Ok(Some(Body {
            kind,
            bytes: length - UNPACKED_BYTES,
            unpacked,
        }))
    }

    fn take(&mut self, body: Body) -> Frame {
        self.head_bytes = 0;
        self.arrived = 0;
        self.body = None;
        let payload = std::mem::take(&mut self.payload);
        match body.kind {
            MESSAGE => Frame::Message(payload),
            RAW => Frame::Raw(payload),
            ZSTD => Frame::Zstd {
                unpacked: body.unpacked,
                packed: payload,
            },
            UNPACKED => Frame::Unpacked {
                wire: body.unpacked,
                data: payload,
            },
            _ => Frame::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            let before = out.len();
            frame.encode(&mut out).unwrap();
            assert_eq!(out.len() - before, frame.wire_bytes());
        }
        out
    }

    /// Feeds the bytes in pieces of the given sizes (repeated), and watches the allocation.
    fn decode(
        mut bytes: &[u8],
        cuts: &[usize],
        message_max: usize,
    ) -> Result<Vec<Frame>, BadFrame> {
        let mut decoder = Decoder::new(message_max);
        let mut frames = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while !bytes.is_empty() {
            let piece = *cuts.next().unwrap_or(&usize::MAX);
            let space = decoder.space();
            let take = space.len().min(bytes.len()).min(piece.max(1));
            space[..take].copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            frames.extend(decoder.filled(take)?);
            assert!(decoder.payload.capacity() <= FIRST_BYTES.max(2 * decoder.arrived));
        }
        Ok(frames)
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 1..max);
        prop_oneof![
            bytes(5000).prop_map(Frame::Message),
            bytes(70_000).prop_map(Frame::Raw),
            (1..=DATA_BYTES_MAX as u32, bytes(70_000))
                .prop_map(|(unpacked, packed)| Frame::Zstd { unpacked, packed }),
            Just(Frame::End),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_survive_any_cut(
            frames in proptest::collection::vec(frame(), 0..5),
            cuts in proptest::collection::vec(1usize..40_000, 1..5),
        ) {
            prop_assert_eq!(decode(&encode(&frames), &cuts, MESSAGE_BYTES_MAX).unwrap(), frames);
        }

        #[test]
        fn hostile_bytes_are_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in 0u8..6) {
            let _ = decode(&bytes, &[7], 100);
            let mut framed = vec![kind, 0, 0];
            framed.extend(bytes);
            let _ = decode(&framed, &[1, 300], 100);
        }
    }

    fn refuse(head: &[u8], what: &str) {
        let error = decode(head, &[], 1000).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }

    #[test]
    fn limits_are_read_from_the_head() {
        refuse(&[0, 0, 0, 0, 1], "kind 0");
        refuse(&[9, 0, 0, 0, 1], "kind 9");
        refuse(&[MESSAGE, 0, 0, 0, 0], "says 0 bytes");
        refuse(&[MESSAGE, 0, 0, 3, 233], "says 1001 bytes");
        refuse(&[MESSAGE, 0xff, 0xff, 0xff, 0xff], "says 4294967295 bytes");
        refuse(&[RAW, 0, 4, 0, 1], "says 262145 bytes");
        refuse(&[RAW, 0, 0, 0, 0], "says 0 bytes");
        refuse(&[ZSTD, 0, 0, 0, 4], "says 4 bytes");
        refuse(&[ZSTD, 0, 0, 0, 9, 0, 4, 0, 1], "says 262145 bytes");
        refuse(&[ZSTD, 0, 0, 0, 9, 0, 0, 0, 0], "says 0 bytes");
        refuse(&[END, 0, 0, 0, 1], "says 1 bytes");
    }

    #[test]
    fn each_side_of_a_worker_has_its_own_kind_of_data() {
        let (packed, data) = (vec![1, 2], vec![3; 1000]);
        let zstd = Frame::Zstd {
            unpacked: 1000,
            packed,
        };
        let unpacked = Frame::Unpacked { wire: 11, data };
        assert_eq!(zstd.wire_bytes(), unpacked.wire_bytes());
        for (dialect, good, bad) in [
            (Dialect::Wire, &zstd, &unpacked),
            (Dialect::Inside, &unpacked, &zstd),
        ] {
            let read = |frame: &Frame| {
                let (mut decoder, mut bytes) = (Decoder::new(1000), Vec::new());
                decoder.set_dialect(dialect);
                frame.encode(&mut bytes).unwrap();
                let mut bytes = &bytes[..];
                loop {
                    let space = decoder.space();
                    let take = space.len().min(bytes.len());
                    space[..take].copy_from_slice(&bytes[..take]);
                    bytes = &bytes[take..];
                    if let Some(frame) = decoder.filled(take)? {
                        return Ok(frame);
                    }
                }
            };
            assert_eq!(read(good).as_ref(), Ok(good));
            assert!(matches!(read(bad), Err(BadFrame::Kind(3 | 5))), "{bad:?}");
        }
    }

    #[test]
    fn the_largest_frames_pass() {
        let frames = vec![
            Frame::Raw(vec![1; DATA_BYTES_MAX]),
            Frame::Zstd {
                unpacked: DATA_BYTES_MAX as u32,
                packed: vec![2; PACKED_BYTES_MAX],
            },
            Frame::Message(vec![b' '; MESSAGE_BYTES_MAX]),
        ];
        assert_eq!(
            decode(&encode(&frames), &[], MESSAGE_BYTES_MAX).unwrap(),
            frames
        );
    }

    #[test]
    fn what_would_be_refused_is_not_sent() {
        for frame in [
            Frame::Raw(vec![]),
            Frame::Raw(vec![0; DATA_BYTES_MAX + 1]),
            Frame::Message(vec![0; MESSAGE_BYTES_MAX + 1]),
            Frame::Zstd {
                unpacked: 0,
                packed: vec![1],
            },
        ] {
            assert!(frame.encode(&mut Vec::new()).is_err(), "{frame:?}");
        }
    }
}
