//! Encrypted data on ZFS: received as they are, opened when they become live, on either side.

use super::*;

/// An encrypted live dataset, and the file that holds its key.
fn encrypted(plot: &Plot, name: &str) -> (Place, PathBuf) {
    let key = plot.path("key");
    fs::write(&key, "a passphrase of some length").unwrap();
    let location = format!("keylocation=file://{}", text(&key));
    let options = [
        "encryption=on",
        "keyformat=passphrase",
        // The fewest there may be: with as many as are usual, to load a key takes an emulated machine ten seconds.
        "pbkdf2iters=100000",
        &location,
        "atime=off",
    ];
    (plot.live(name, &options), key)
}

fn beside(plot: &Plot) -> Place {
    let parent = format!("{}/birch", plot.name);
    zfs(&["create", "-o", "canmount=off", &parent]);
    plot.place("birch/web")
}

#[test]
fn encrypted_data_without_the_key() {
    let Some(plot) = Plot::new("encrypted_data_without_the_key") else {
        return;
    };
    let (here, key) = encrypted(&plot, "alder/web");
    let there = beside(&plot);
    let (alder, birch) = (role(&[("web", &here)]), role(&[("web", &there)]));
    alder.prepare().unwrap();
    birch.prepare().unwrap();
    fill(&here.path, "secret", 1, 4 << 20);
    let one = take(&alder, 1, 1);
    carry(&alder, &birch, &one, None, Some(2 << 20)).unwrap();
    assert!(carry(&alder, &birch, &one, None, None).unwrap().resumed);
    fill(&here.path, "secret too", 2, 1 << 20);
    let two = take(&alder, 1, 2);
    carry(&alder, &birch, &two, Some(&one.manifest.point), None).unwrap();
    // No key, then a wrong one: said before anything is touched.
    let web = dataset("web");
    let id = &two.manifest.point;
    let wrong = plot.path("wrong");
    fs::write(&wrong, "another passphrase").unwrap();
    for (file, words) in [(None, "key-file"), (Some(&wrong), "Incorrect key")] {
        let place = Place {
            key: file.cloned(),
            ..there.clone()
        };
        let birch = role(&[("web", &place)]);
        let error = said(birch.restore_live(&web, id, None, manifest(2, 3)));
        assert!(error.contains(words), "{error}");
        assert!(birch.ground().iter().any(|ground| ground.hint.is_some()));
        assert_eq!(birch.live_identity(&web).unwrap(), None);
        assert_eq!(listed(&birch), [(1, 1), (1, 2)]);
    }
    let place = Place {
        key: Some(key),
        ..there
    };
    let birch = role(&[("web", &place)]);
    let odd: Vec<_> = birch
        .ground()
        .into_iter()
        .filter(|ground| ground.hint.is_some())
        .collect();
    assert_eq!(odd, []);
    birch.restore_live(&web, id, None, manifest(2, 3)).unwrap();
    assert_same(&here.path, &place.path);
    let root = zfs(&["get", "-Hp", "-o", "value", "encryptionroot", &place.zfs]);
    assert_eq!(root.trim(), place.zfs, "it can be loaded at boot by itself");
}

/// As without encryption: there and back by differences, raw both ways, and no fork lost.
#[test]
fn encrypted_data_change_sides() {
    let Some(plot) = Plot::new("encrypted_data_change_sides") else {
        return;
    };
    let (here, key) = encrypted(&plot, "alder/web");
    let key = Some(key);
    let there = Place {
        key: key.clone(),
        ..beside(&plot)
    };
    reversals(&plot, &Place { key, ..here }, &there, 4);
}
