//! A crash after every step.
