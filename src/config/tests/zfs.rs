//! Datasets on ZFS.

use super::*;

/// A role with these datasets; what is complained of.
fn datasets(text: &str, expected: Expect) {
    complaints(
        &format!(
            "{NODE}[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = {{ last = 3 }}\n{text}"
        ),
        expected,
    );
}

#[test]
fn a_role_on_zfs() {
    let text = format!(
        "{NODE}[role.web]\nhome = \"alder\"\nevery = \"5m\"\nkeep = {{ last = 3 }}\n\
         dataset.a = {{ zfs = \"tank/a\", path = \"/srv/a\" }}\ndataset.b = {{ zfs = \"pond/x/b\", path = \"/srv/b\" }}\n\
         [role.log]\nkind = \"logs\"\npeers = [\"birch\"]\nevery = \"5m\"\nkeep = {{ last = 3 }}\n\
         dataset.c = {{ zfs = \"tank/log/{{node}}\", path = \"/srv/log/{{node}}\" }}\n\
         [peer.birch]\naddress = \"birch:7321\"\n"
    );
    let config = parse(&text).unwrap();
    let shown: Vec<String> = config
        .roles
        .values()
        .map(|role| format!("{} {:?} {:?}", role.name, role.datasets, role.views))
        .collect();
    expect![[r#"
        log.alder {DatasetName("c"): Zfs { name: "tank/log/alder", path: "/srv/log/alder", key: None }} {}
        log.birch {DatasetName("c"): Zfs { name: "tank/log/birch", path: "/srv/log/.standin.birch", key: None }} {DatasetName("c"): "/srv/log/birch"}
        web {DatasetName("a"): Zfs { name: "tank/a", path: "/srv/a", key: None }, DatasetName("b"): Zfs { name: "pond/x/b", path: "/srv/b", key: None }} {}"#]].assert_eq(&shown.join("\n"));
    assert_eq!(parse(&config.show()).unwrap(), config, "{}", config.show());
}

#[test]
fn what_is_wrong_about_zfs() {
    datasets(
        "dataset.a.zfs = \"tank/a\"",
        expect![[
            r#"/c.toml:7: role.web.dataset.a.path: missing: write path = "/srv/web", where it is mounted while it is live"#
        ]],
    );
    datasets(
        "dataset.a = { zfs = \"tank\", path = \"srv/a\", btrfs = \"/srv/b\" }",
        expect![
            "/c.toml:7: role.web.dataset.a.btrfs: of a dataset with `zfs`: a dataset lies on one of the two"
        ],
    );
    datasets(
        "dataset.a = { zfs = \"tank\", path = \"/srv/a\" }\ndataset.b = { zfs = \"tank/a@b\", path = \"/srv/b\" }\n\
         dataset.c = { zfs = \"tank/{node}\", path = \"/srv/c\" }",
        expect![[r#"
            /c.toml:7: role.web.dataset.a.zfs = "tank": not a ZFS filesystem below a pool, such as tank/web: the points of a whole pool would have no place
            /c.toml:8: role.web.dataset.b.zfs = "tank/a@b": not the name of a ZFS filesystem, such as tank/web
            /c.toml:9: role.web.dataset.c.zfs = "tank/{node}": {node} stands for the names of nodes in a role of kind = "logs" only"#]],
    );
    datasets(
        "dataset.a = { zfs = \"tank/a\", path = \"/srv/a\" }\ndataset.b.btrfs = \"/srv/b\"",
        expect![
            "/c.toml:3: role.web.dataset: some lie on btrfs and some on ZFS: their snapshots could not be made together; make a role of each"
        ],
    );
    datasets(
        "dataset.a = { zfs = \"tank/a\", path = \"/srv/a\" }\ndataset.b = { zfs = \"tank/a/b\", path = \"/srv/b\" }\n\
         dataset.c = { zfs = \"tank/c\", path = \"/srv/a/c\" }\ndataset.d = { zfs = \"tank/a\", path = \"/srv/d\" }",
        expect![[r#"
            /c.toml:8: role.web.dataset.b.zfs = "tank/a/b": lies in tank/a (role.web.dataset.a.zfs), which could not be replaced without it: `zfs rename` it to a place beside
            /c.toml:8: role.web.dataset.b.zfs = "tank/a/b": lies in tank/a (role.web.dataset.d.zfs), which could not be replaced without it: `zfs rename` it to a place beside
            /c.toml:9: role.web.dataset.c.zfs = "tank/c": its path /srv/a/c lies in that of role.web.dataset.a.zfs, which could not be replaced while this is mounted in it: mount it beside
            /c.toml:10: role.web.dataset.d.zfs = "tank/a": role.web.dataset.a.zfs is the same filesystem: data belong to one dataset"#]],
    );
    datasets(
        "[role.log]\nkind = \"logs\"\nevery = \"5m\"\nkeep = { last = 3 }\n\
         dataset.c = { zfs = \"tank/log\", path = \"/srv/log/{node}\" }",
        expect![[r#"
            /c.toml:3: role.web.dataset: missing: a role needs at least one, such as [role.ROLE.dataset.files] with btrfs = "/srv/files"
            /c.toml:11: role.log.dataset.c.zfs = "tank/log": each node of a role of kind = "logs" writes a filesystem of its own: write {node} where its name belongs, such as "tank/log/{node}""#]],
    );
}
