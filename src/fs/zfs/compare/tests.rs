//! Two directories that stand for two snapshots; a rename between them is not to be had, so numbers are not equal.

use std::fs;

use super::*;

#[test]
fn what_differs() {
    let (base, newer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let told = || -> Vec<(What, String, u64)> {
        let changes = changes(base.path(), newer.path()).unwrap();
        let text = |path: Vec<u8>| String::from_utf8(path).unwrap();
        changes
            .into_iter()
            .map(|c| (c.what, text(c.path), c.bytes))
            .collect()
    };
    assert_eq!(told(), []);
    fs::create_dir_all(base.path().join("old/deep")).unwrap();
    fs::write(base.path().join("old/deep/file"), "x").unwrap();
    fs::write(newer.path().join("new"), "four").unwrap();
    let told = told();
    let expected = [
        (What::Added, "new", 4),
        (What::Removed, "old", 0),
        (What::Removed, "old/deep", 0),
        (What::Removed, "old/deep/file", 0),
    ];
    assert_eq!(
        told,
        expected.map(|(what, path, bytes)| (what, path.to_owned(), bytes))
    );
}

/// The very same tree through two paths: whatever is in it, nothing differs; and one file against itself, changed.
#[test]
fn equal_numbers_and_times_are_equal_files() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("dir")).unwrap();
    fs::write(base.path().join("dir/file"), vec![7; 200_000]).unwrap();
    assert_eq!(changes(base.path(), base.path()).unwrap(), []);
    let copy = base.path().join("dir/copy");
    let mut data = vec![7; 200_000];
    data[BLOCK + 5] = 8;
    data.push(9);
    fs::write(&copy, data).unwrap();
    let open = |name: &str| File::open(base.path().join("dir").join(name)).unwrap();
    let found = spans(Some(&open("file")), &open("copy")).unwrap();
    let block = BLOCK as u64;
    let expected = [
        Span {
            offset: block,
            len: block,
        },
        Span {
            offset: 3 * block,
            len: 200_001 - 3 * block,
        },
    ];
    assert_eq!(found, expected);
}
