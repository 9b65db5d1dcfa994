//! `standin serve`: the one brain of a node. Schedules cycles, keeps links, answers peers and the control socket.

pub mod api;

/// Serves until told to stop. `config` is the configuration file.
pub fn serve(config: &std::path::Path) -> anyhow::Result<()> {
    let _ = config;
    anyhow::bail!("this build has no daemon")
}
