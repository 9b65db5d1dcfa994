//! What every implementation promises of forks.

use super::*;
use standin::fs::Held;
use standin::logic::changes::What;
use standin::logic::fork::Fork;

pub fn points_fork(fs: &dyn Filesystem) {
    let (dataset, path) = fs.datasets().iter().next().unwrap();
    assert_eq!(fs.forks().unwrap(), []);
    let mut taken = Vec::new();
    for sequence in 40..44 {
        fs::write(path.join("forked"), format!("{sequence}")).unwrap();
        taken.push(take(fs, 1, sequence));
    }
    let [base, one, two, late] = &taken[..] else {
        panic!("four were taken");
    };
    // In use: nothing is moved.
    let outgoing = fs.send(dataset, None, &two.manifest.point, 1).unwrap();
    let fork = described(Some(base), &[one, two]);
    assert!(is_busy(fs.fork(&ids(&[one, two]), fork.clone())));
    assert_eq!(listed(fs).len(), 4);
    assert_eq!(fs.forks().unwrap(), []);
    drop(outgoing);
    fs.fork(&ids(&[one, two]), fork.clone()).unwrap();
    fs.fork(&ids(&[one, two]), fork.clone()).unwrap();
    assert!(is_missing(fs.fork(&[id(9, 9)], fork.clone())));
    assert_eq!(fs.forks().unwrap(), std::slice::from_ref(&fork));
    assert_eq!(listed(fs), [(1, 40), (1, 43)]);
    assert_eq!(fs.inspect().unwrap().damaged, [], "no damage");
    assert!(is_missing(fs.snapshot_path(dataset, &one.manifest.point)));
    assert!(is_missing(fs.measure(
        dataset,
        None,
        &one.manifest.point,
        1
    )));
    fs.destroy(&one.manifest.point).unwrap();
    fs.sweep().unwrap();
    fs.prepare().unwrap();

    let datasets: Vec<_> = fs.datasets().keys().cloned().collect();
    assert_eq!(fs.fork_datasets(&fork.name).unwrap(), datasets);
    let shown = |point| {
        let path = fs.fork_path(&fork.name, dataset, point).unwrap();
        fs::read_to_string(path.join("forked")).unwrap()
    };
    assert_eq!(shown(None), "42");
    assert_eq!(shown(Some(&one.manifest.point)), "41");
    assert!(is_missing(fs.fork_path(
        &fork.name,
        dataset,
        Some(&base.manifest.point)
    )));
    assert!(is_missing(fs.fork_datasets(&late.manifest.name())));

    let newer = Held::Forked(fork.name, two.manifest.point.clone());
    let changes = fs.changes(dataset, &Held::Point(base.manifest.point.clone()), &newer);
    let changes = changes.unwrap();
    let told: Vec<_> = changes.iter().map(|c| (c.what, &c.path[..])).collect();
    assert_eq!(told, [(What::Changed, &b"forked"[..])]);
    assert_eq!(changes[0].bytes, 2);

    // A second pass extends it, under the name it has.
    let later = Fork {
        name: fork.name,
        ..described(None, &[late])
    };
    fs.fork(&ids(&[late]), later).unwrap();
    let grown = fs.forks().unwrap();
    assert_eq!(grown.len(), 1);
    assert_eq!(grown[0].points.len(), 3);
    assert_eq!((grown[0].name, &grown[0].base), (fork.name, &fork.base));
    assert_eq!(shown(None), "43");

    fs.discard_fork(&fork.name).unwrap();
    fs.discard_fork(&fork.name).unwrap();
    assert_eq!(fs.forks().unwrap(), []);
    assert_eq!(listed(fs), [(1, 40)]);
    fs.destroy(&base.manifest.point).unwrap();
}
