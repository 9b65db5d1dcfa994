//! Database servers that a test starts for itself: on a directory of its own, as an unprivileged user, reached by a socket.
//!
//! Promise: they end with the test, also when it panics, and open no port.

pub mod mariadb;
