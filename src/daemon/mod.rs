//! `standin serve`: the one brain of a node. Schedules cycles, keeps links, answers peers and the control socket.

pub mod api;
