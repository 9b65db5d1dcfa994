//! The unpacker of bulk data: a frame unpacks to exactly what it declares or is refused; bombs cost no more than a frame.

use standin::peer::bulk::{Packer, Unpacker};
use standin::peer::frame::{DATA_BYTES_MAX, Frame};

use super::Target;
use super::bounds::peak;
use super::draw::Draw;

pub const TARGET: Target = Target {
    name: "unpack",
    what: "Packed data unpack to exactly what is declared or are refused; bombs cost no more than one frame",
    needs_disk: false,
    bytes_max: 8 << 10,
    seeds,
    start: || Box::new(run),
};

/// The input is frames: a byte for the kind, three for the unpacked length, two for the packed, then that many bytes.
fn run(input: &[u8]) {
    let mut draw = Draw(input);
    let mut unpacker = Unpacker::new().unwrap();
    let ((), held) = peak(|| {
        while !draw.is_over() {
            let raw = draw.byte() & 1 == 1;
            let unpacked = little(draw.bytes(3));
            let length = little(draw.bytes(2)) as usize;
            let bytes = draw.bytes(length).to_vec();
            let frame = if raw {
                Frame::Raw(bytes)
            } else {
                let packed = bytes;
                Frame::Zstd { unpacked, packed }
            };
            match unpacker.unpack(&frame) {
                Ok(data) => {
                    assert_eq!(data.len(), frame.data_bytes());
                    assert!(raw || data.len() <= DATA_BYTES_MAX);
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
    });
    assert!(held <= input.len() + 8192, "{held} bytes held");
}

fn little(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let (kind, unpacked, bytes) = match frame {
        Frame::Raw(bytes) => (1, bytes.len() as u32, bytes),
        Frame::Zstd { unpacked, packed } => (0, *unpacked, packed),
        Frame::Message(_) | Frame::Unpacked { .. } | Frame::End => panic!("not data of the wire"),
    };
    let mut out = vec![kind];
    out.extend_from_slice(&unpacked.to_le_bytes()[..3]);
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

fn seeds() -> Vec<Vec<u8>> {
    let words: Vec<u8> = (0..6000u32)
        .flat_map(|i| (i % 97 / 3).to_be_bytes())
        .collect();
    let mut seeds = Vec::new();
    for level in [1, 3, 19] {
        let mut packer = Packer::new(level).unwrap();
        let all = words
            .chunks(5000)
            .map(|piece| encoded(&packer.pack(piece).unwrap()));
        seeds.push(all.collect::<Vec<_>>().concat());
    }
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    for unpacked in [1, 100_000, DATA_BYTES_MAX as u32] {
        let packed = bomb.clone();
        seeds.push(encoded(&Frame::Zstd { unpacked, packed }));
    }
    seeds.push(encoded(&Frame::Raw(b"as it is".to_vec())));
    seeds
}
