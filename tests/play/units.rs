//! systemd units.
