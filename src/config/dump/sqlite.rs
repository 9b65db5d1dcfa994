//! Keys of a dump of kind `sqlite`.

use toml_edit::Table;

use crate::config::document::Section;
use crate::logic::dump::sqlite::Sqlite;

pub(super) fn read(section: &mut Section) -> Option<Sqlite> {
    section.complain("kind", "this program cannot dump it yet");
    None
}

pub(super) fn show(_: &Sqlite, _: &mut Table) {}
