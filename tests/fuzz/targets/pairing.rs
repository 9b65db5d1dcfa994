//! The invitation line: any text is an invitation or is told not to be one, and an invitation survives being written.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use standin::logic::name::NodeName;
use standin::peer::invite::Invite;

use super::Target;

pub const TARGET: Target = Target {
    name: "pairing",
    what: "Any text is an invitation or is told why not, and an invitation survives being written",
    needs_disk: false,
    bytes_max: 4 << 10,
    seeds,
    start: || Box::new(run),
};

/// The first byte says whether the rest is a line, or the inside of one that gets its wrapping and checksum here.
fn run(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    let line = if mode & 1 == 0 {
        String::from_utf8_lossy(rest).into_owned()
    } else {
        wrapped(rest)
    };
    match Invite::parse(&line) {
        Ok(invite) => {
            let again = Invite::parse(&invite.to_line());
            assert_eq!(again, Ok(invite), "{line}");
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.chars().any(char::is_control), "{told:?}");
        }
    }
}

fn wrapped(json: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, json);
    let sum = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..6]);
    format!("standin-pair:v1:{sum}{}", URL_SAFE_NO_PAD.encode(json))
}

fn seeds() -> Vec<Vec<u8>> {
    let key = "\"SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\"";
    let key = serde_json::from_str(key).unwrap();
    let node = NodeName::parse("alder").unwrap();
    let expires = Timestamp::from_second(1_800_000_000).unwrap();
    let mut invite = Invite::new(node, "alder.example.org:7170".into(), key, expires).unwrap();
    // The same on every run.
    invite.id = "0123456789abcdef".into();
    invite.secret = serde_json::from_str("\"000102030405060708090a0b0c0d0e0f\"").unwrap();
    let line = [&b"\0"[..], invite.to_line().as_bytes()].concat();
    let json = [&b"\x01"[..], &serde_json::to_vec(&invite).unwrap()].concat();
    vec![line, json, b"\0standin-pair:v2:abc".to_vec()]
}
