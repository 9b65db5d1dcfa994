//! Real database servers of the Debian packages, each on a directory and a socket of its own, and gone with the test.

pub mod postgres;
