//! `standin init`: a first configuration, the state directory and the node's key.
//!
//! Promise: an existing configuration is never touched. The configuration is written last, so that a run which was cut short
//! can simply be repeated: a crash here leaves a state directory and perhaps a key, both of which the next run takes over.
//! What is written is accepted by `Config::parse`.
//!
//! [`init`] deliberately does not know how a key is made, nor how the report is shown.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::output::Output;
use super::render;
use crate::cli::{self, Global};
use crate::config::{self, Config};
use crate::error::{Code, Failure};
use crate::host::mounts::{self, ZfsFilesystem};
use crate::logic::name::{NodeName, RoleName, is_zfs_filesystem};
use crate::peer::identity::Identity;

/// The port that the first configuration listens on.
pub const PORT_DEFAULT: u16 = 7321;

/// Subvolumes offered as roles at most: a machine with thousands of containers still gets a file to read.
const OFFERED_MAX: usize = 12;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitOptions {
    /// The configuration to write.
    pub config: PathBuf,
    /// None: the first word of the host name.
    pub name: Option<NodeName>,
    pub state_dir: PathBuf,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            config: config::PATH_DEFAULT.into(),
            name: None,
            state_dir: config::STATE_DIR_DEFAULT.into(),
        }
    }
}

/// What was done, to be shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InitReport {
    pub node: NodeName,
    pub config: PathBuf,
    pub state_dir: PathBuf,
    /// Fingerprint of the node's public key.
    pub key: String,
    /// btrfs subvolumes offered as roles in the configuration.
    pub btrfs: Vec<PathBuf>,
    /// ZFS filesystems offered as roles in the configuration.
    pub zfs: Vec<String>,
    pub warnings: Vec<String>,
}

/// The verb.
pub fn run(global: &Global, args: &cli::Init) -> Result<Code> {
    let options = InitOptions {
        config: global.config.clone(),
        name: args.name.clone(),
        state_dir: args.state_dir.clone(),
    };
    let report = init(&options, |path| {
        let identity = if path.exists() {
            Identity::load(path)?
        } else {
            Identity::create(path)?
        };
        Ok(identity.fingerprint().to_string())
    })?;
    let value = serde_json::to_value(&report).context("write JSON")?;
    Output::of(global).answer(&value, || Ok(render::init(&report)))?;
    Ok(Code::Done)
}

/// Does it all. `key` makes the key file at the given path, or reads the one that is there, and returns its fingerprint.
pub fn init(
    options: &InitOptions,
    key: impl FnOnce(&Path) -> Result<String>,
) -> Result<InitReport> {
    let path = std::path::absolute(&options.config).context("find the config's directory")?;
    let state_dir = std::path::absolute(&options.state_dir).context("find the state directory")?;
    if fs::symlink_metadata(&path).is_ok() {
        return Err(Failure::new(
            Code::Refused,
            format!("write {}: it exists already", path.display()),
        )
        .hint("edit it, or move it away first")
        .into());
    }
    let node = match &options.name {
        Some(name) => name.clone(),
        None => name_of_host(&rustix::system::uname().nodename().to_string_lossy())?,
    };
    let mut warnings = Vec::new();
    let subvolumes = or_warn(mounts::read(), &mut warnings);
    let subvolumes = offered(mounts::subvolumes(&subvolumes));
    let zfs = offered_zfs(or_warn(mounts::zfs_filesystems(), &mut warnings));

    let text = first_config(&node, &state_dir, &subvolumes, &zfs);
    Config::parse(&text, &path).map_err(Failure::from)?;

    make_state_dir(&state_dir, &mut warnings)?;
    let key = key(&state_dir.join("node.key")).context("make the node's key")?;
    config::store::create(&path, &text)?;
    Ok(InitReport {
        node,
        config: path,
        state_dir,
        key,
        btrfs: subvolumes,
        zfs: zfs.into_iter().map(|(name, _)| name).collect(),
        warnings,
    })
}

/// What cannot be found is offered by nobody; that is no reason not to begin.
fn or_warn<T>(found: Result<Vec<T>>, warnings: &mut Vec<String>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        warnings.push(format!("{error:#}"));
        Vec::new()
    })
}

/// A directory that is there keeps its mode: it may be one that others need, too.
fn make_state_dir(path: &Path, warnings: &mut Vec<String>) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create {}", path.display()))?;
    let facts = fs::metadata(path).with_context(|| format!("read mode of {}", path.display()))?;
    if facts.permissions().mode() & 0o077 != 0 {
        warnings.push(format!(
            "{} was there and is open to others: chmod 700 it unless they need it",
            path.display()
        ));
    }
    Ok(())
}

/// `www.example.org` is `www`; what a name cannot hold becomes a hyphen.
fn name_of_host(host: &str) -> Result<NodeName> {
    let first = host.split('.').next().unwrap_or_default();
    NodeName::parse(&tame(first)).map_err(|_| {
        Failure::new(
            Code::Usage,
            format!("make a node name of the host name {host:?}"),
        )
        .hint("choose one with --name")
        .into()
    })
}

fn tame(word: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let tamed: String = word
        .chars()
        .map(|c| if good(c) { c } else { '-' })
        .collect();
    let tamed = tamed.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    tamed
        .chars()
        .take(crate::logic::name::NAME_BYTES_MAX)
        .collect()
}

/// Leaves out the root of the system, which cannot be exchanged while it runs, what is hidden, and what TOML cannot spell.
fn offered(subvolumes: Vec<PathBuf>) -> Vec<PathBuf> {
    let hidden = |part: &std::ffi::OsStr| part.as_encoded_bytes().starts_with(b".");
    subvolumes
        .into_iter()
        .filter(|path| path != Path::new("/") && !path.iter().any(hidden))
        .filter(|path| {
            path.to_str()
                .is_some_and(|text| !text.contains(char::is_control))
        })
        .take(OFFERED_MAX)
        .collect()
}

/// The same of ZFS filesystems, and those whose mountpoint is their own affair (`legacy`, `none`).
fn offered_zfs(found: Vec<ZfsFilesystem>) -> Vec<(String, PathBuf)> {
    let mounted = |filesystem: ZfsFilesystem| {
        let path = offered(vec![filesystem.mountpoint?]).pop()?;
        is_zfs_filesystem(&filesystem.name).then_some((filesystem.name, path))
    };
    let found = found.into_iter().filter_map(mounted);
    found.take(OFFERED_MAX).collect()
}

/// The text of the first configuration.
fn first_config(
    node: &NodeName,
    state_dir: &Path,
    subvolumes: &[PathBuf],
    zfs: &[(String, PathBuf)],
) -> String {
    let state = quoted(state_dir);
    let state_key = if state_dir == Path::new(config::STATE_DIR_DEFAULT) {
        "#state-dir"
    } else {
        "state-dir"
    };
    let mut text = format!(
        r##"# standin on {node}. Every key is explained in docs/standin.toml; `standin check` tells what is wrong in this file.

[node]
name = "{node}"
# Where peers dial in. Take it out if this node is only to dial.
listen = "0.0.0.0:{PORT_DEFAULT}"
# How peers reach it from outside, told to them when pairing.
#advertise = "{node}.example.org:{PORT_DEFAULT}"
{state_key} = {state}

# Peers: `standin pair invite` on one node and `standin pair accept` on the other write their sections here.

# Roles: what fails over together, by the same name on all its nodes. Take the "#" away from what this node is to keep
# replicated, and list its peers. What else is to move with a role is said in its section (docs/failover.md):
#   services = ["postgresql@15-main.service", "nginx.service"]    run where it is active, and nowhere else
#   addresses = ["192.0.2.10/24 eth0"]                            come and go with it
#   hooks.after-start = "/etc/standin/web-is-here"                called when it has come
"##
    );
    let mut names = Vec::new();
    text += &roles(node, subvolumes, &mut names);
    text += &roles_on_zfs(node, zfs, &mut names);
    if subvolumes.is_empty() && zfs.is_empty() {
        text += "# Neither a btrfs subvolume nor a ZFS filesystem was found; `btrfs subvolume create` or `zfs create` makes one.\n";
    }
    text
}

/// The lines of a role before its datasets.
fn heading(role: &str, node: &NodeName) -> String {
    format!(
        r#"
#[role.{role}]
#home = "{node}"
#peers = []
#every = "5m"
#keep = {{ last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6 }}
"#
    )
}

/// ZFS filesystems as roles, commented out. Of those that lie in one another only the outermost: both is refused.
fn roles_on_zfs(node: &NodeName, zfs: &[(String, PathBuf)], names: &mut Vec<String>) -> String {
    let mut text = String::new();
    let lies_in = |name: &str, outer: &str| {
        name.strip_prefix(outer)
            .is_some_and(|below| below.starts_with('/'))
    };
    for (name, path) in zfs {
        let outer = zfs.iter().find(|(other, at)| {
            lies_in(name, other) || (path != at && path.starts_with(at) && !lies_in(other, name))
        });
        if let Some((outer, _)) = outer {
            text += &format!(
                "\n# {name} lies in {outer}, whose points do not hold it: to have it replicated, `zfs rename` it to a place beside\n\
                 # and mount it beside.\n"
            );
            continue;
        }
        let role = role_name(path, names);
        text += &heading(&role, node);
        let path = quoted(path);
        text += &format!("#[role.{role}.dataset.{role}]\n#zfs = \"{name}\"\n#path = {path}\n");
    }
    text
}

/// The subvolumes as roles, commented out; those nested in others as further datasets of theirs.
fn roles(node: &NodeName, subvolumes: &[PathBuf], names: &mut Vec<String>) -> String {
    let mut text = String::new();
    let outer = |path: &PathBuf| {
        let around = subvolumes.iter();
        let around = around.filter(|other| *other != path && path.starts_with(other));
        around.min_by_key(|other| other.as_os_str().len())
    };
    for path in subvolumes.iter().filter(|path| outer(path).is_none()) {
        let role = role_name(path, names);
        text += &heading(&role, node);
        let path_text = quoted(path);
        text += &format!("#[role.{role}.dataset.{role}]\n#btrfs = {path_text}\n");
        let mut datasets = vec![role.clone()];
        for nested in subvolumes
            .iter()
            .filter(|nested| outer(nested) == Some(path))
        {
            let name = role_name(nested, &mut datasets);
            text += &format!(
                "# Nested in it, so not in its snapshots: a dataset of its own.\n#[role.{role}.dataset.{name}]\n#btrfs = {}\n",
                quoted(nested)
            );
        }
    }
    text
}

fn quoted(path: &Path) -> String {
    toml_edit::Value::from(path.to_string_lossy().as_ref()).to_string()
}

/// The last word of the path, made a name that no other role has. Without dots: those would have to be quoted.
fn role_name(path: &Path, taken: &mut Vec<String>) -> String {
    let last = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let last = tame(&last.replace('.', "-"));
    let wanted = if RoleName::parse(&last).is_ok() {
        last
    } else {
        "data".to_owned()
    };
    let mut name = wanted.clone();
    let mut count = 2;
    while taken.contains(&name) {
        name = format!("{}-{count}", wanted.chars().take(40).collect::<String>());
        count += 1;
    }
    taken.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::name::DatasetName;
    use expect_test::expect;

    fn host(name: &str, expected: &str) {
        let told = match name_of_host(name) {
            Ok(name) => name.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn names_of_hosts() {
        host("alder", "alder");
        host("alder.example.org", "alder");
        host("my host", "my-host");
        host("-x", "x");
        host("", "make a node name of the host name \"\"");
        host("(none)", "none-");
    }

    fn paths(words: &[&str]) -> Vec<PathBuf> {
        words.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_offered() {
        let found = paths(&[
            "/",
            "/home",
            "/srv/.hidden",
            "/srv/.standin/x",
            "/srv/new\nline",
        ]);
        assert_eq!(offered(found), paths(&["/home"]));
        let many: Vec<PathBuf> = (0..100)
            .map(|i| PathBuf::from(format!("/srv/{i}")))
            .collect();
        assert_eq!(offered(many).len(), OFFERED_MAX);
    }

    fn text(subvolumes: &[&str], zfs: &[(&str, &str)]) -> String {
        let found = zfs.iter().map(|(name, mountpoint)| ZfsFilesystem {
            name: (*name).to_owned(),
            mountpoint: mountpoint.starts_with('/').then(|| mountpoint.into()),
        });
        let zfs = offered_zfs(found.collect());
        let node = NodeName::parse("alder").unwrap();
        first_config(
            &node,
            Path::new("/var/lib/standin"),
            &paths(subvolumes),
            &zfs,
        )
    }

    #[test]
    fn the_first_config() {
        expect![[r##"
            # standin on alder. Every key is explained in docs/standin.toml; `standin check` tells what is wrong in this file.

            [node]
            name = "alder"
            # Where peers dial in. Take it out if this node is only to dial.
            listen = "0.0.0.0:7321"
            # How peers reach it from outside, told to them when pairing.
            #advertise = "alder.example.org:7321"
            #state-dir = "/var/lib/standin"

            # Peers: `standin pair invite` on one node and `standin pair accept` on the other write their sections here.

            # Roles: what fails over together, by the same name on all its nodes. Take the "#" away from what this node is to keep
            # replicated, and list its peers. What else is to move with a role is said in its section (docs/failover.md):
            #   services = ["postgresql@15-main.service", "nginx.service"]    run where it is active, and nowhere else
            #   addresses = ["192.0.2.10/24 eth0"]                            come and go with it
            #   hooks.after-start = "/etc/standin/web-is-here"                called when it has come

            #[role.web]
            #home = "alder"
            #peers = []
            #every = "5m"
            #keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6 }
            #[role.web.dataset.web]
            #btrfs = "/srv/web"

            #[role.web-2]
            #home = "alder"
            #peers = []
            #every = "5m"
            #keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6 }
            #[role.web-2.dataset.web-2]
            #btrfs = "/mnt/web"

            #[role.mail]
            #home = "alder"
            #peers = []
            #every = "5m"
            #keep = { last = 3, hourly = 24, daily = 7, weekly = 4, monthly = 6 }
            #[role.mail.dataset.mail]
            #zfs = "tank/mail"
            #path = "/srv/mail"

            # tank/mail/old lies in tank/mail, whose points do not hold it: to have it replicated, `zfs rename` it to a place beside
            # and mount it beside.
        "##]].assert_eq(&text(&["/srv/web", "/mnt/web"], &[
            ("tank", "/tank"),
            ("tank/root", "/"),
            ("tank/var", "legacy"),
            ("tank/mail", "/srv/mail"),
            ("tank/mail/old", "/srv/mail/old"),
            ("tank/.standin/mail/spool", "/x"),
        ]));
    }

    #[test]
    fn every_offer_is_accepted_when_uncommented() {
        let text = text(
            &[
                "/srv/www.example.org",
                "/a\"b\\",
                "/srv/www-example-org/cache/inner",
                "/srv/www-example-org",
                "/srv/www-example-org/cache",
                "/...",
            ],
            &[
                ("tank/zfs", "/srv/zfs"),
                ("tank/zfs/inner", "/srv/inner"),
                ("pond/y", "/srv/zfs/y"),
            ],
        );
        Config::parse(&text, Path::new("/c.toml")).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let uncommented: Vec<&str> = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => key,
                _ => line,
            })
            .collect();
        let config = Config::parse(&uncommented.join("\n"), Path::new("/c.toml"));
        let config = config.unwrap_or_else(|e| panic!("{e}\n{text}"));
        let names: Vec<&str> = config.roles.keys().map(RoleName::as_str).collect();
        assert_eq!(
            names,
            [
                "a-b-",
                "data",
                "www-example-org",
                "www-example-org-2",
                "zfs"
            ]
        );
        let datasets = config.roles.values().nth(3).unwrap().datasets.keys();
        let datasets: Vec<&str> = datasets.map(DatasetName::as_str).collect();
        assert_eq!(
            datasets,
            ["cache", "inner", "www-example-org-2"],
            "nested ones"
        );
    }

    #[test]
    fn it_is_all_there_afterwards_and_never_twice() {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            config: directory.path().join("etc/standin.toml"),
            name: Some(NodeName::parse("alder").unwrap()),
            state_dir: directory.path().join("lib/standin"),
        };
        let key = |path: &Path| {
            assert!(path.ends_with("lib/standin/node.key"));
            Ok("SHA256:x".to_owned())
        };
        let report = init(&options, key).unwrap();
        assert_eq!(report.key, "SHA256:x");
        assert_eq!(report.warnings, Vec::<String>::new());
        let config = Config::load(&options.config).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.node.state_dir, options.state_dir);
        let mode = fs::metadata(&options.state_dir)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700);
        let error = init(&options, |_| panic!("no key is made")).unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Refused);
    }

    #[test]
    fn without_a_key_there_is_no_config() {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            config: directory.path().join("standin.toml"),
            name: Some(NodeName::parse("alder").unwrap()),
            state_dir: directory.path().join("lib"),
        };
        fs::create_dir(&options.state_dir).unwrap();
        fs::set_permissions(&options.state_dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(init(&options, |_| anyhow::bail!("no entropy")).is_err());
        assert!(!options.config.exists());
        let report = init(&options, |_| Ok(String::new())).unwrap();
        assert!(report.warnings[0].contains("open to others"));
    }
}
