//! Keys of a dump of kind `redis`.

use toml_edit::Table;

use crate::config::document::Section;
use crate::logic::dump::redis::Redis;

pub(super) fn read(section: &mut Section) -> Option<Redis> {
    section.complain("kind", "this program cannot dump it yet");
    None
}

pub(super) fn show(_: &Redis, _: &mut Table) {}
