//! Says what a reboot will show at a live path, from what fstab says and what is there now.
//!
//! Subvolumes are exchanged when a point is restored and when a role moves: the path of a subvolume stays, its number
//! (`subvolid=`) does not. And on a node that stands in there is nothing to mount, which a machine without `nofail` in that line
//! waits for when it starts.
//!
//! Promise: reads only. It deliberately does not know mount units of systemd that do not come from fstab.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::fstab::{self, Entry, FSTAB};
use super::ioctl;
use super::place::{Occupant, Place};
use super::top::Top;
use crate::error::{Code, Failure};
use crate::fs::{AfterReboot, Result};

/// See `Filesystem::after_reboot`.
pub fn after(place: &Place) -> AfterReboot {
    let live = place.live.display();
    let is_live = place.occupant == Occupant::Subvolume;
    let fine = |sentence: String| AfterReboot {
        sentence,
        hint: None,
        is_problem: false,
    };
    let Some(entry) = &place.entry else {
        return match (place.is_mount, is_live) {
            (true, _) => AfterReboot {
                sentence: format!("a reboot mounts nothing at {live}: {FSTAB} has no line for it"),
                hint: Some(format!(
                    "add this line, unless something else mounts it: {}",
                    line(place, None)
                )),
                is_problem: false,
            },
            (false, true) => fine(format!(
                "a reboot shows the live copy at {live}, which is no mount of its own"
            )),
            (false, false) => fine(format!(
                "a reboot shows nothing at {live}: there is no live copy"
            )),
        };
    };
    let file = entry.file.display();
    if let Some(sentence) = wrong(place, entry, is_live) {
        return AfterReboot {
            sentence,
            hint: Some(format!("in {file}, write: {}", line(place, Some(entry)))),
            is_problem: true,
        };
    }
    if entry.has("noauto") {
        return fine(format!(
            "a reboot leaves {live} unmounted: {file} says noauto"
        ));
    }
    if is_live && !place.is_mount {
        return AfterReboot {
            sentence: format!("a reboot mounts the live copy at {live}, which is not mounted now"),
            hint: Some(format!("mount {live}")),
            is_problem: false,
        };
    }
    fine(match is_live {
        true => format!("a reboot mounts the live copy at {live}, by its path in {file}"),
        false => format!(
            "a reboot mounts nothing at {live}: there is no live copy, and {file} says nofail"
        ),
    })
}

/// What is wrong with the line, as a sentence.
fn wrong(place: &Place, entry: &Entry, is_live: bool) -> Option<String> {
    let (live, file) = (place.live.display(), entry.file.display());
    if !is_same_filesystem(place, entry) {
        let source = entry.source.to_string_lossy();
        return Some(format!(
            "a reboot mounts another filesystem at {live} than the one with the live copy: {file} says {source}"
        ));
    }
    if let Some(id) = entry.value("subvolid") {
        let live_id = place
            .open_live()
            .and_then(|dir| Ok(ioctl::subvolume(dir)?.id));
        return Some(match live_id {
            Ok(now) if id.parse() == Ok(now) => format!(
                "a reboot mounts the live copy at {live}, but only until the next restore or change of roles: {file} names it by its number, subvolid={id}"
            ),
            _ => format!(
                "a reboot does not mount the live copy at {live}: {file} names another subvolume by its number, subvolid={id}"
            ),
        });
    }
    match entry.subvolume() {
        Some(named) if named == place.relative => {}
        named => {
            let named = named.map_or("no subvolume".to_owned(), |path| {
                format!("subvol=/{}", path.display())
            });
            return Some(format!(
                "a reboot does not mount the live copy at {live}, which is /{}: {file} says {named}",
                place.relative.display()
            ));
        }
    }
    (!is_live && !entry.has("nofail") && !entry.has("noauto")).then(|| {
        format!("a reboot may stop at {live}: there is no live copy to mount, and its line in {file} lacks nofail")
    })
}

fn is_same_filesystem(place: &Place, entry: &Entry) -> bool {
    if let Some(fsid) = entry.fsid() {
        return fsid == place.top.fsid;
    }
    let found = entry.device().and_then(|device| Top::on(&device));
    found.is_ok_and(|top| top.fsid == place.top.fsid)
}

/// The line that is right for the place.
fn line(place: &Place, entry: Option<&Entry>) -> String {
    let uuid = || OsString::from(format!("UUID={}", place.top.fsid));
    let plain = Entry {
        source: uuid(),
        point: place.live.clone(),
        kind: "btrfs".to_owned(),
        options: Vec::new(),
        file: FSTAB.into(),
    };
    let entry = entry.unwrap_or(&plain);
    let source = match is_same_filesystem(place, entry) {
        true => entry.source.clone(),
        false => uuid(),
    };
    let more: &[&str] = match place.occupant {
        Occupant::Subvolume => &[],
        _ => &["nofail"],
    };
    let options = entry.options_naming(&place.relative, more);
    fstab::line(OsStr::new(&source), Path::new(&entry.point), &options)
}

/// Refuses to unmount a live path of which fstab does not say what belongs there: nobody could find it again.
pub fn refuse_to_lose(place: &Place) -> Result<()> {
    let named = |entry: &Entry| {
        entry.is_btrfs()
            && entry.subvolume().as_deref() == Some(&place.relative)
            && is_same_filesystem(place, entry)
    };
    if place.entry.as_ref().is_some_and(named) {
        return Ok(());
    }
    let live = place.live.display();
    let file = place
        .entry
        .as_ref()
        .map_or(Path::new(FSTAB), |entry| &entry.file);
    let what = format!(
        "{live} is a mount of its own that {} does not name: once it is unmounted, nobody could tell where its data belong",
        file.display()
    );
    Err(Failure::new(Code::Refused, what)
        .hint(format!(
            "write this line there: {}",
            line(place, place.entry.as_ref())
        ))
        .into())
}
