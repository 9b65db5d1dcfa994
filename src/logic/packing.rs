//! Whether what is sent is packed: it is not where packing takes time and the line has room.
//!
//! Promise: a line that holds the transfer up gets packed data, but for a try now and then, which are further and further apart. It
//! deliberately does not know how data are packed, nor whether they pack well: what does not is left alone by the packer itself.

use std::time::Duration;

/// Pieces after which it is judged: some megabytes.
const PIECES: u32 = 32;

/// Judgements for which it stays packed after a try without was no good; doubled by each further one ...
const PATIENCE_FIRST: u32 = 8;

/// ... up to this.
const PATIENCE_MOST: u32 = 512;

/// Where the time of the pieces went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spans {
    /// Until there was something to send.
    pub reading: Duration,
    pub packing: Duration,
    /// Until the line took it.
    pub handing: Duration,
}

/// What is known so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    packs: bool,
    pieces: u32,
    spent: Spans,
    /// Judgements until the next try without.
    wait: u32,
    patience: u32,
}

impl Default for Packing {
    fn default() -> Packing {
        Packing {
            packs: true,
            pieces: 0,
            spent: Spans::default(),
            wait: 0,
            patience: PATIENCE_FIRST,
        }
    }
}

impl Packing {
    /// Whether the next piece is to be packed.
    pub fn packs(&self) -> bool {
        self.packs
    }

    /// A piece took so long. `receiver_waits`: the receiver has time for more than it gets.
    pub fn note(&mut self, spans: Spans, receiver_waits: bool) {
        self.spent.reading += spans.reading;
        self.spent.packing += spans.packing;
        self.spent.handing += spans.handing;
        self.pieces += 1;
        if self.pieces == PIECES {
            self.judge(receiver_waits);
            (self.pieces, self.spent) = (0, Spans::default());
        }
    }

    fn judge(&mut self, receiver_waits: bool) {
        let spent = self.spent;
        let all = spent.reading + spent.packing + spent.handing;
        if !self.packs {
            // A fifth of the time the line was waited for, and not because of who is behind it.
            if receiver_waits && spent.handing * 5 > all {
                self.packs = true;
                self.wait = self.patience;
                self.patience = (self.patience * 2).min(PATIENCE_MOST);
            }
            return;
        }
        if self.wait > 0 {
            self.wait -= 1;
            return;
        }
        let line_has_room = !receiver_waits || spent.handing * 20 < all;
        if line_has_room && spent.packing * 8 > all {
            self.packs = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `story`: judgements, each `r reading packing handing` in any unit, the receiver waiting (`w`) or busy (`b`) in place of `r`;
    /// what follows is whether the next pieces are packed.
    #[track_caller]
    fn check(story: &[(&str, bool)]) {
        let mut packing = Packing::default();
        assert!(packing.packs(), "it begins packed");
        for (at, (judgement, packs)) in story.iter().enumerate() {
            let words: Vec<&str> = judgement.split(' ').collect();
            let span = |word: usize| Duration::from_millis(words[word].parse().unwrap());
            let spans = Spans {
                reading: span(1),
                packing: span(2),
                handing: span(3),
            };
            for _ in 0..PIECES {
                packing.note(spans, words[0] == "w");
            }
            assert_eq!(packing.packs(), *packs, "{at}: {judgement}");
        }
    }

    #[test]
    fn a_slow_line_is_packed() {
        check(&[("w 10 10 80", true), ("w 50 40 10", true)]);
    }

    #[test]
    fn a_slow_source_is_packed() {
        check(&[("w 95 5 0", true), ("b 95 5 0", true)]);
    }

    #[test]
    fn a_fast_line_is_not() {
        check(&[("w 50 50 0", false), ("w 90 0 10", false)]);
    }

    #[test]
    fn who_is_behind_the_line_is_told_apart_from_it() {
        check(&[("b 10 20 70", false), ("b 10 0 90", false)]);
        check(&[("b 10 20 70", false), ("w 10 0 90", true)]);
    }

    #[test]
    fn a_try_that_was_no_good_is_not_made_again_soon() {
        let mut story = vec![("w 50 50 0", false), ("w 10 0 90", true)];
        story.extend([("w 50 50 0", true); PATIENCE_FIRST as usize]);
        story.push(("w 50 50 0", false));
        story.push(("w 10 0 90", true));
        story.extend([("w 50 50 0", true); 2 * PATIENCE_FIRST as usize]);
        story.push(("w 50 50 0", false));
        check(&story);
    }
}
