//! What to send next.
