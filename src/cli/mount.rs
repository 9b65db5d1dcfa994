//! The arguments of `mount` and `unmount`.

use std::path::PathBuf;

use clap::Args;

use crate::logic::name::RoleName;

/// Show all points and forks in a directory, read-only, for shells and file managers
///
/// They are found as DIR/ROLE/POINT/DATASET and DIR/ROLE/forks/FORK/DATASET. New points appear, pruned ones vanish: nothing is
/// held up by looking. Only root may enter, unless --allow names others; then owners and modes of the files decide what they may
/// read. It lasts until unmount or the next boot. Without DIR: where points are mounted now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  standin mount /mnt/points
  standin mount /mnt/web --role web --allow :staff
  cp -a /mnt/points/web/20261120T123105Z.1.42/files/www/index.html /srv/web/www/
  standin mount                            what is mounted where
  standin unmount /mnt/points")]
pub struct Mount {
    /// An empty directory outside of all datasets
    pub dir: Option<PathBuf>,
    /// Only this role [default: all]
    #[arg(long, requires = "dir")]
    pub role: Option<RoleName>,
    /// Who may enter besides root: USER, :GROUP or USER:GROUP
    #[arg(long, requires = "dir", value_name = "WHO")]
    pub allow: Option<String>,
}

/// Take down what `mount` put up
///
/// It never fails because somebody looks: who has files of it open keeps them until they are closed.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  standin unmount /mnt/points")]
pub struct Unmount {
    /// The directory that was given to `mount`
    pub dir: PathBuf,
}
