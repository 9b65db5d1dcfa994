//! The command line as a value.
