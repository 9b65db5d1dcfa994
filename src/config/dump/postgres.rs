//! Keys of a dump of kind `postgres`.

use toml_edit::Table;

use crate::config::document::Section;
use crate::logic::dump::postgres::Postgres;

pub(super) fn read(section: &mut Section) -> Option<Postgres> {
    section.complain("kind", "this program cannot dump it yet");
    None
}

pub(super) fn show(_: &Postgres, _: &mut Table) {}
