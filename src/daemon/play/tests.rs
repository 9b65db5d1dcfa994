//! The order of the steps, with scripts that write down when they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::Config;
use crate::host::state::State;
use crate::peer::identity::Identity;

struct Stage {
    dir: tempfile::TempDir,
    node: Arc<Node>,
    run: Arc<RoleRun>,
}

/// Writes its name down; fails or hangs where a file says so.
const SCRIPT: &str = "#!/bin/sh\necho $STANDIN_MOMENT >> DIR/log\n[ ! -e DIR/fail-$STANDIN_MOMENT ] || { echo no luck; exit 1; }\n\
    [ ! -e DIR/hang-$STANDIN_MOMENT ] || sleep 1000\n\
    case $STANDIN_MOMENT in start) touch DIR/up;; stop) rm -f DIR/up;; esac\n";

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display().to_string();
        fs::create_dir(dir.path().join("state")).unwrap();
        for (name, text) in [("it", SCRIPT), ("health", "#!/bin/sh\n[ -e DIR/up ]\n")] {
            let path = dir.path().join(name);
            // Through a copy: nobody has the script itself open for writing when it is executed.
            let fresh = dir.path().join("fresh");
            fs::write(&fresh, text.replace("DIR", &at)).unwrap();
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&fresh, &path).unwrap();
        }
        let text = format!(
            "[node]\nname = \"alder\"\nstate-dir = \"{at}/state\"\n[role.web]\nhome = \"alder\"\nevery = \"manual\"\n\
             keep = {{ last = 3 }}\nservices = \"app\"\nservice.app = {{ start = \"{at}/it\", stop = \"{at}/it\", health = \"{at}/health\", timeout = \"5s\" }}\n\
             hooks.before-start = \"{at}/it\"\nhooks.after-start = \"{at}/it\"\nhooks.before-stop = \"{at}/it\"\nhooks.after-stop = \"{at}/it\"\n\
             [role.web.dataset.files]\nbtrfs = \"{at}/live\"\n"
        );
        let config = Config::parse(&text, &dir.path().join("c.toml")).unwrap();
        let identity = Identity::create(&dir.path().join("key")).unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let node = Node::new(config, identity, state).unwrap();
        let run = node.roles().remove(0);
        Stage { dir, node, run }
    }

    fn touch(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").unwrap();
    }

    /// What was called since the last time.
    fn log(&self) -> String {
        let path = self.dir.path().join("log");
        let log = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        log.trim().replace('\n', " ")
    }
}

#[tokio::test]
async fn hooks_and_services_in_order_and_again() {
    let stage = Stage::new();
    let (node, run) = (&stage.node, &stage.run);
    assert!(!runs(node, run).await.unwrap());
    start(node, run).await.unwrap();
    assert_eq!(stage.log(), "before-start start after-start");
    assert!(runs(node, run).await.unwrap());
    start(node, run).await.unwrap();
    assert_eq!(stage.log(), "before-start after-start");
    address(node, run).await.unwrap();
    stop(node, run, false).await.unwrap();
    assert_eq!(stage.log(), "before-stop stop after-stop");
    assert!(!runs(node, run).await.unwrap());
    prove(node, run).await.unwrap();
    standing_in(node, run).await.unwrap();
    stop(node, run, false).await.unwrap();
    assert_eq!(stage.log(), "before-stop stop after-stop");
}

#[tokio::test]
async fn what_a_failed_hook_stops() {
    let stage = Stage::new();
    let (node, run) = (&stage.node, &stage.run);
    stage.touch("fail-before-start");
    let error = start(node, run).await.unwrap_err().to_string();
    assert!(
        error.contains("hook before-start of web") && error.contains("no luck"),
        "{error}"
    );
    assert_eq!(stage.log(), "before-start");
    fs::remove_file(stage.dir.path().join("fail-before-start")).unwrap();
    stage.touch("fail-after-start");
    start(node, run).await.unwrap();
    assert_eq!(stage.log(), "before-start start after-start");
    stage.touch("fail-before-stop");
    assert!(stop(node, run, false).await.is_err());
    assert!(runs(node, run).await.unwrap());
    assert_eq!(stage.log(), "before-stop");
    // Fencing does not ask.
    fs::remove_file(stage.dir.path().join("fail-before-stop")).unwrap();
    stage.touch("hang-before-stop");
    let began = Instant::now();
    stop(node, run, true).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(stage.log(), "before-stop stop after-stop");
    assert!(!runs(node, run).await.unwrap());
}

#[tokio::test]
async fn a_service_that_does_not_stop_is_told_after_everything_was_tried() {
    let stage = Stage::new();
    let (node, run) = (&stage.node, &stage.run);
    start(node, run).await.unwrap();
    stage.log();
    stage.touch("fail-stop");
    let error = format!("{:#}", stop(node, run, true).await.unwrap_err());
    assert!(error.contains("stop service app"), "{error}");
    assert_eq!(stage.log(), "before-stop stop after-stop");
}

#[test]
fn the_end_of_words() {
    assert_eq!(end_of("abc"), "abc");
    let long = "ä".repeat(TOLD_BYTES_MAX);
    assert!(end_of(&long).len() <= TOLD_BYTES_MAX);
}
