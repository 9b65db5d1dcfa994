//! The workloads, and the order in which they are run: one after the other on the same subvolume where the later needs the
//! earlier.

use std::path::Path;

use crate::contenders::{Contender, Who};
use crate::gauge::Reading;
use crate::ground::{self, Room, Size};

/// One figure of a workload: what `who` took in a round.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Run {
    pub workload: &'static str,
    pub who: Who,
    pub round: usize,
    #[serde(flatten)]
    pub reading: Reading,
}

type Make = fn(&Path, &Size);
type Change = fn(&Path, &Size, u64);

/// A subvolume, what is done to it, and the workload that each step is; the first is its first transfer.
pub struct Course {
    pub make: Make,
    pub mount: &'static str,
    pub first: &'static str,
    pub then: &'static [(&'static str, Change)],
    pub who: &'static [Who],
    pub destinations: usize,
}

const ALL: &[Who] = &[Who::Pipe, Who::Btrbk, Who::Standin];

pub const COURSES: &[Course] = &[
    Course {
        make: ground::one_file,
        mount: "noatime",
        first: "a",
        then: &[("c", ground::overwrite), ("f", |_, _, _| {})],
        who: ALL,
        destinations: 1,
    },
    Course {
        make: ground::many_files,
        mount: "noatime",
        first: "b",
        then: &[("d", ground::rearrange)],
        who: ALL,
        destinations: 1,
    },
    Course {
        make: |top, size| ground::much_text(top, size.file_bytes),
        mount: "noatime,compress=zstd",
        first: "e-packed",
        then: &[],
        who: &[Who::Pipe, Who::Pipe2, Who::Btrbk, Who::Standin],
        destinations: 1,
    },
    Course {
        make: |top, size| ground::much_text(top, size.file_bytes),
        mount: "noatime",
        first: "e-plain",
        then: &[],
        who: &[Who::Pipe, Who::ZstdSsh, Who::Btrbk, Who::Standin],
        destinations: 1,
    },
    Course {
        make: ground::one_file,
        mount: "noatime",
        first: "i",
        then: &[],
        who: ALL,
        destinations: 3,
    },
];

impl Course {
    pub fn has(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        wanted(self.first) || self.then.iter().any(|(workload, _)| wanted(workload))
    }

    /// All rounds; each gives every contender (of `who`, where it names any) its turn, beginning with another one.
    pub fn run(
        &self,
        room: &Room,
        size: &Size,
        rounds: usize,
        (wanted, who): (impl Fn(&str) -> bool, &[Who]),
        runs: &mut Vec<Run>,
    ) {
        let takes_part = |one: &&Who| who.is_empty() || who.contains(one);
        let all: Vec<Who> = self.who.iter().filter(takes_part).copied().collect();
        let most = size.file_bytes * 3 + (2 << 30);
        let source = room.filesystem("source", most, self.mount);
        let pristine = source.join("pristine");
        ground::subvolume(&pristine);
        (self.make)(&pristine, size);
        for round in 0..rounds {
            for turn in 0..all.len() {
                let who = all[(turn + round) % all.len()];
                let disks = (0..self.destinations)
                    .map(|n| room.filesystem(&format!("destination{n}"), most, self.mount));
                let mut contender = Contender::new(who, source.path(), &pristine, disks.collect());
                let mut note = |workload, reading| {
                    if wanted(workload) {
                        say(workload, who, round, &reading);
                        runs.push(Run {
                            workload,
                            who,
                            round,
                            reading,
                        });
                    }
                };
                note(self.first, contender.go());
                for (workload, change) in self.then {
                    change(&contender.live, size, round as u64 + 7);
                    settle(source.path());
                    note(workload, contender.go());
                }
                if round == 0 {
                    let expected = ground::digest(&contender.live);
                    for held in contender.received() {
                        assert_eq!(
                            held, expected,
                            "{who:?} did not carry all of {}",
                            self.first
                        );
                    }
                }
                contender.end();
            }
        }
    }
}

/// What was changed is on disk: everybody begins with the same.
fn settle(top: &Path) {
    let dir = std::fs::File::open(top).unwrap();
    rustix::fs::syncfs(&dir).unwrap();
}

pub fn say(workload: &str, who: Who, round: usize, reading: &Reading) {
    println!(
        "{workload:9} round {round} {:9} {:8.3} s, on disk {:8.3} s, cpu {:7.2} s, peak {:5.0} MiB",
        format!("{who:?}"),
        reading.wall_s,
        reading.durable_s,
        reading.cpu_s,
        reading.peak_bytes as f64 / 1048576.0
    );
}
