//! The arguments of `drift`.

use clap::Args;

/// Compare what is watched on this node with its peers
///
/// [[node.watch]] of the configuration says what: files, versions of packages, what commands say. A peer is asked for what it
/// watches under the same name; what is accepted there is left out. Exit code 0: nothing differs; 18: something does; 13: no
/// peer could be asked; 3: something could not be compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin drift                            everything, with every peer
  standin drift birch                      with one peer
  standin drift birch /etc/nginx --all     one watch, also what is the same")]
pub struct Drift {
    /// Only these peers, or watches by their names [default: all]
    #[arg(value_name = "PEER|WATCH")]
    pub names: Vec<String>,
    /// Also show what is the same
    #[arg(long, short)]
    pub all: bool,
}
