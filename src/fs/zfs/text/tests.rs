//! Texts of OpenZFS 2.1, 2.2 and 2.3, and what they mean.

use super::*;

fn means(said: &str, expected: Trouble) {
    assert_eq!(trouble(said), expected, "{said}");
}

#[test]
fn what_zfs_says() {
    use Trouble::*;
    means("cannot open 'p1/x': dataset does not exist\n", Missing);
    means("cannot open 'p9': no such pool\n", Missing);
    means(
        "could not find any snapshots to destroy; check snapshot names.\n",
        Missing,
    );
    means("cannot unmount '/srv/d': pool or dataset is busy\n", Busy);
    means("cannot destroy snapshot p1/D@s: dataset is busy\n", Busy);
    means(
        "cannot destroy snapshot p1/D@s: it's being held. Run 'zfs holds -r p1/D@s' to see holders.\n",
        Held,
    );
    means(
        "cannot destroy 'p1/D@s2': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\np1/D-fork\n",
        Clones,
    );
    means(
        "cannot create snapshot 'p1/E@m1': dataset already exists\nno snapshots were created\n",
        Exists,
    );
    means(
        "cannot receive new filesystem stream: out of space\n",
        NoSpace,
    );
    means("cannot receive: quota exceeded\n", NoSpace);
    means(
        "cannot receive incremental stream: destination p2/H has been modified\nsince most recent snapshot\n",
        Modified,
    );
    means(
        "cannot receive incremental stream: most recent snapshot of p2/H does not\nmatch incremental source\n",
        Base,
    );
    means(
        "cannot receive incremental stream: IV set guid mismatch. See the 'zfs receive' man page section\n discussing the limitations of raw encrypted send streams.\n",
        Base,
    );
    means(
        "warning: cannot send 'p1/a@2': not an earlier snapshot from the same fs\nincremental source (p1/a@9) is not earlier than it\n",
        Base,
    );
    means(
        "cannot receive incremental stream: checksum mismatch or incomplete stream.\nPartially received snapshot is saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t 1-e7\n",
        Partial,
    );
    means(
        "cannot receive incremental stream: destination p2/H contains partially-complete state from \"zfs receive -s\".\n",
        Token,
    );
    means(
        "cannot receive resume stream: kernel modules must be upgraded to receive this stream.\n",
        Token,
    );
    means(
        "cannot resume send: 'p1/D@s' is no longer the same snapshot used in the initial send\n",
        Token,
    );
    means(
        "cannot resume send: 'p1/D@s' used in the initial send no longer exists\n",
        Token,
    );
    means(
        "'p2/H' does not have any resumable receive state to abort\n",
        NoToken,
    );
    means("cannot mount 'p1/C': encryption key not loaded\n", Key);
    means("Key load error: Incorrect key provided for 'p2/C'.\n", Key);
    means("cannot create 'p1/x': permission denied\n", Denied);
    means("warning: cannot send 'p1/a@b': Input/output error\n", Io);
    means("cannot unmount 'p1/D': not currently mounted\n", NotMounted);
    means("cannot mount 'p1/D': filesystem already mounted\n", Mounted);
    means("cannot create bookmark 'p1/D#b': bookmark exists\n", Exists);
    means(
        "cannot hold snapshot 'p1/D@s': tag already exists on this dataset\n",
        Exists,
    );
    means(
        "cannot release hold from snapshot 'p1/D@s': no such tag on this dataset\n",
        Missing,
    );
    means("cannot do it: something new\n", Other);
}

/// The same refusal in the words of each version.
#[test]
fn what_differs_between_versions() {
    use Trouble::*;
    // A snapshot with holds: 2.1, 2.2 and 2.3.2; then newer 2.3.
    means("cannot destroy snapshot p1/D@s: dataset is busy\n", Busy);
    means(
        "cannot destroy snapshot p1/D@s: it's being held. Run 'zfs holds -r p1/D@s' to see holders.\n",
        Held,
    );
    // A stream that goes on, for a dataset that is there and waits for none: 2.1; then from 2.2.
    means("cannot receive resume stream: dataset is busy\n", Busy);
    means(
        "cannot receive resume stream: Resuming recv on existing dataset without force\n",
        Exists,
    );
    // What 2.1 and its packages print of their version.
    assert_eq!(version("zfs-2.1.11-1+deb12u1"), Some((2, 1)));
    assert_eq!(version("zfs-kmod-2.1.5-1ubuntu6~22.04.5"), Some((2, 1)));
    assert_eq!(version("zfs-kmod-2.2.2-0ubuntu9.1"), Some((2, 2)));
    assert_eq!(version("zfs-2.3.2-2~bpo12+2"), Some((2, 3)));
}

#[test]
fn tables() {
    assert_eq!(rows("", 2).unwrap(), Vec::<Vec<&str>>::new());
    assert_eq!(
        rows("a b\t1\nc\t-\n", 2).unwrap(),
        [["a b", "1"], ["c", "-"]]
    );
    assert!(rows("a\t1\t2\n", 2).is_err());
    assert_eq!(
        (number("12").unwrap(), number("-").unwrap()),
        (Some(12), None)
    );
    assert!(number("1.5K").is_err());
}

#[test]
fn sizes() {
    // 2.1 and 2.2: on standard output, without -p of a name; 2.3 the same.
    assert_eq!(
        size("full\tp1/D@s1\t126488888\nsize\t126488888\n"),
        Some(126_488_888)
    );
    assert_eq!(
        size("incremental\ts1\tp1/D@s2\t2637008\nsize\t2637008\n"),
        Some(2_637_008)
    );
    assert_eq!(size("incremental\t#b\tp1/D@s2\t0\nsize\t0\n"), Some(0));
    assert_eq!(size("size\t18446744073709549000\n"), None);
    assert_eq!(size("full\tp1/D@s1\t5\n"), None);
}

#[test]
fn tokens() {
    let said = "resume token contents:\nnvlist version: 0\n\tobject = 0x80\n\toffset = 0x2b40000\n\tbytes = 0x2c5d9e0\n\ttoguid = 0xd5be06ea9a4ce4ba\n\ttoname = p1/D@s1\n\tcompressok = 1\ncannot resume send: 'p1/D@s1' used in the initial send no longer exists\n";
    let expected = Token {
        to: 0xd5be_06ea_9a4c_e4ba,
        from: 0,
        bytes: 0x2c5_d9e0,
    };
    assert_eq!(token(said), Some(expected));
    let on_top = said.replace("\toffset", "\tfromguid = 0x11\n\toffset");
    assert_eq!(token(&on_top).unwrap().from, 0x11);
    assert_eq!(token("cannot resume send: resume token is corrupt\n"), None);
    assert!(is_token("1-c740b4779-c8-789c636064000310a5"));
    for word in ["", "-", "-F", "1-x", "p1/D", "1-ab cd"] {
        assert!(!is_token(word), "{word}");
    }
}

#[test]
fn the_open_group_when_all_before_it_are_written() {
    let heading = "53 0 0x01 100 11200 86 79\ntxg birth state ndirty nread\n";
    let is = |lines: &str, expected: Option<u64>| {
        assert_eq!(
            settled_group(&format!("{heading}{lines}")),
            expected,
            "{lines}"
        );
    };
    is("7 10 C 0 0\n8 20 C 4096 0\n9 30 O 0 0\n", Some(9));
    is("9 30 O 0 0\n", None);
    is("7 10 C 0 0\n9 30 O 0 0\n", None);
    is("7 10 C 0 0\n8 20 S 4096 0\n9 30 O 0 0\n", None);
    is("8 20 W 4096 0\n9 30 O 0 0\n", None);
    is("8 20 Q 4096 0\n9 30 O 0 0\n", None);
    is("8 20 C 0 0\n9 30 B 0 0\n", None);
    is("8 20 O 0 0\n9 30 O 0 0\n", None);
    is("8 20 C 0 0\n", None);
    is("8 20\n9 30 O 0 0\n", None);
    is("18446744073709551615 20 C 0 0\n0 30 O 0 0\n", None);
    is("nine 30 O 0 0\n", None);
    is("", None);
    assert_eq!(settled_group(""), None);
}
