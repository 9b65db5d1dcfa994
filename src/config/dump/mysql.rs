//! Keys of a dump of kind `mysql`.

use toml_edit::Table;

use crate::config::document::Section;
use crate::logic::dump::mysql::Mysql;

pub(super) fn read(section: &mut Section) -> Option<Mysql> {
    section.complain("kind", "this program cannot dump it yet");
    None
}

pub(super) fn show(_: &Mysql, _: &mut Table) {}
