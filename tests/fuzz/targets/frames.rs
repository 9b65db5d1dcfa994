//! The decoder of frames: never panics, holds about twice what has arrived, and what it reads is written the same.

use standin::peer::frame::{BadFrame, Decoder, Frame};
use standin::peer::message::{MESSAGE_BYTES_MAX, SMALL_BYTES_MAX};

use super::Target;
use super::bounds::peak;
use super::draw::Draw;

pub const TARGET: Target = Target {
    name: "frames",
    what: "The decoder of frames neither panics nor holds more than twice what arrived, and cuts change nothing",
    needs_disk: false,
    bytes_max: 16 << 10,
    seeds,
    start: || Box::new(run),
};

/// First allocation for a payload (frame.rs), in bytes.
const FIRST_BYTES: usize = 32 << 10;

fn run(input: &[u8]) {
    let mut draw = Draw(input);
    let cut = usize::from(draw.byte()) + 1;
    let message_max = draw.pick(&[MESSAGE_BYTES_MAX, SMALL_BYTES_MAX, 100]);
    let bytes = draw.0;
    // What the decoder holds, not what is kept of it here: an end of five bytes is a value of forty.
    let (_, held) = peak(|| decode(bytes, usize::MAX, message_max, drop));
    let most = FIRST_BYTES + 2 * bytes.len() + 4096;
    assert!(held <= most, "{held} bytes held for {} bytes", bytes.len());
    let (frames, error) = all(bytes, usize::MAX, message_max);
    let in_pieces = all(bytes, cut, message_max);
    assert_eq!((&frames, &error), (&in_pieces.0, &in_pieces.1), "cut {cut}");
    let mut again = Vec::new();
    for frame in &frames {
        frame
            .encode(&mut again)
            .expect("what is read can be written");
    }
    assert!(bytes.starts_with(&again), "written otherwise than read");
}

fn all(bytes: &[u8], cut: usize, message_max: usize) -> (Vec<Frame>, Option<BadFrame>) {
    let mut frames = Vec::new();
    let error = decode(bytes, cut, message_max, |frame| frames.push(frame));
    (frames, error)
}

fn decode(
    mut bytes: &[u8],
    cut: usize,
    message_max: usize,
    mut each: impl FnMut(Frame),
) -> Option<BadFrame> {
    let mut decoder = Decoder::new(message_max);
    while !bytes.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty());
        let take = space.len().min(bytes.len()).min(cut);
        space[..take].copy_from_slice(&bytes[..take]);
        bytes = &bytes[take..];
        match decoder.filled(take) {
            Ok(Some(frame)) => each(frame),
            Ok(None) => {}
            Err(error) => return Some(error),
        }
    }
    None
}

fn seeds() -> Vec<Vec<u8>> {
    let message = Frame::Message(br#"{"type":"ping"}"#.to_vec());
    let zstd = Frame::Zstd {
        unpacked: 5,
        packed: vec![1, 2, 3],
    };
    let frames = [message, Frame::Raw(vec![7; 300]), zstd, Frame::End];
    let encoded = |frames: &[Frame]| {
        let mut bytes = vec![3, 0];
        for frame in frames {
            frame.encode(&mut bytes).unwrap();
        }
        bytes
    };
    let mut seeds: Vec<Vec<u8>> = frames
        .iter()
        .map(|f| encoded(std::slice::from_ref(f)))
        .collect();
    seeds.push(encoded(&frames));
    seeds
}
