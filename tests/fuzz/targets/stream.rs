//! The parser of send streams: never panics, holds at most one command, and reads the same however the bytes are cut.

use standin::fs::btrfs::scan::Scanner;
use standin::fs::btrfs::stream::{Command, Encoder, Parser, Piece, command_bytes_max};

use super::Target;
use super::bounds::peak;
use super::draw::Draw;
use crate::support::commands::{commands, put_checksums_right};

pub const TARGET: Target = Target {
    name: "stream",
    what: "The parser of send streams neither panics nor holds more than one command, and cuts change nothing",
    needs_disk: false,
    bytes_max: 16 << 10,
    seeds,
    start: || Box::new(run),
};

/// What a parse came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    units: usize,
    offset: u64,
    ended: bool,
    data_bytes: u64,
    error: Option<String>,
}

/// The first byte says how the rest is treated: its lowest bits whether checksums are put right (else nearly no changed
/// input would get past them), and the second how it is cut.
fn run(input: &[u8]) {
    let mut draw = Draw(input);
    let (mode, cut) = (draw.byte(), draw.byte());
    let mut bytes = draw.0.to_vec();
    if mode & 3 != 0 {
        put_checksums_right(&mut bytes);
    }
    let mut whole = Vec::new();
    let (outcome, held) = peak(|| parse(&bytes, &[usize::MAX], |raw| whole.extend_from_slice(raw)));
    assert_eq!(
        whole,
        bytes[..outcome.offset as usize],
        "units are the bytes"
    );
    let most = command_bytes_max(2) + 2 * bytes.len() + 8192;
    assert!(held <= most, "{held} bytes held, {most} are enough");
    let cuts = [usize::from(cut) + 1, usize::from(mode >> 2) + 1, 4096];
    let mut at = 0;
    let (in_pieces, held) = peak(|| {
        parse(&bytes, &cuts, |raw| {
            assert_eq!(raw, &bytes[at..at + raw.len()]);
            at += raw.len();
        })
    });
    assert_eq!(outcome, in_pieces, "cuts of {cuts:?} change what is read");
    let most = command_bytes_max(2) + 8192;
    assert!(held <= most, "{held} bytes held, {most} are enough");
    // What is read well is counted alike by the scanner, which looks at heads only.
    if outcome.error.is_none() && outcome.offset as usize == bytes.len() && outcome.units > 0 {
        let mut scanner = Scanner::new();
        bytes.chunks(cuts[0]).for_each(|piece| scanner.push(piece));
        assert_eq!(scanner.commands(), outcome.units as u64 - 1);
    }
}

fn parse(bytes: &[u8], cuts: &[usize], mut unit: impl FnMut(&[u8])) -> Outcome {
    let mut parser = Parser::new();
    let mut outcome = Outcome {
        units: 0,
        offset: 0,
        ended: false,
        data_bytes: 0,
        error: None,
    };
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() || outcome.error.is_some() {
            break;
        }
        let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        while !piece.is_empty() {
            match parser.next(piece) {
                Ok(taken) => {
                    assert!(taken.used > 0 && taken.used <= piece.len(), "no progress");
                    piece = &piece[taken.used..];
                    let Some(step) = taken.step else { continue };
                    outcome.units += 1;
                    outcome.offset += step.raw.len() as u64;
                    unit(step.raw);
                    if let Piece::Command(command) = step.piece {
                        let carried = command.data_bytes();
                        outcome.data_bytes = outcome.data_bytes.saturating_add(carried);
                        outcome.ended |= command == Command::End;
                    }
                    assert_eq!(parser.offset(), outcome.offset);
                }
                Err(error) => {
                    outcome.error = Some(error.to_string());
                    break;
                }
            }
        }
    }
    assert!(outcome.error.is_some() || parser.has_ended() == outcome.ended);
    outcome
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in 1..=3 {
        let mut all = Encoder::new(version);
        for command in commands() {
            all.put(&command);
            let mut one = Encoder::new(version);
            one.put(&command);
            seeds.push([&[1, 6][..], one.bytes()].concat());
        }
        seeds.push([&[1, 200][..], all.bytes()].concat());
    }
    let real = super::apply::real_streams();
    seeds.extend(real.iter().map(|stream| [&[5, 250][..], stream].concat()));
    seeds
}
