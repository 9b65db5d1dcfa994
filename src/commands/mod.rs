//! One file per verb the user types; each is: gather, decide, show, perform.

pub mod init;
