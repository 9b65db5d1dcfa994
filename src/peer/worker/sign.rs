//! The private key stays with the daemon: a worker has its TLS handshake signed over a socket of its own.
//!
//! Promise: the daemon signs once for each connection, and only the CertificateVerify text of TLS 1.3 for its own side
//! (RFC 8446, 4.4.3): 64 spaces, the context, a zero byte, a hash. That text begins like no other this key signs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::identity::Identity;
use super::super::link::Side;

/// The text before the hash: 64 spaces, the context, a zero byte.
const CONTEXT_SERVER: &[u8] = b"TLS 1.3, server CertificateVerify";
const CONTEXT_CLIENT: &[u8] = b"TLS 1.3, client CertificateVerify";
const SPACES: usize = 64;

/// Bytes of the transcript hashes of TLS 1.3.
const HASHES: [usize; 3] = [32, 48, 64];

/// Longest text.
const TEXT_BYTES_MAX: u16 = 64 + 33 + 1 + 64;

/// An Ed25519 signature, in bytes.
const SIGNATURE_BYTES: usize = 64;

/// Whether the text is the one that the given side of a handshake signs.
fn fits(text: &[u8], side: Side) -> bool {
    let context = match side {
        Side::Dialled => CONTEXT_CLIENT,
        Side::Accepted => CONTEXT_SERVER,
    };
    let head = [&[b' '; SPACES][..], context, &[0]].concat();
    text.strip_prefix(&head[..])
        .is_some_and(|hash| HASHES.contains(&hash.len()))
}

/// The daemon's end: one text, one signature.
pub(super) async fn serve(
    mut socket: tokio::net::UnixStream,
    identity: Identity,
    side: Side,
) -> Result<()> {
    let length = socket.read_u16().await.context("read a text to sign")?;
    if length > TEXT_BYTES_MAX {
        bail!("a worker wants {length} bytes signed");
    }
    let mut text = vec![0; usize::from(length)];
    let read = socket.read_exact(&mut text).await;
    read.context("read a text to sign")?;
    if !fits(&text, side) {
        bail!("a worker wants something signed that is no handshake of its side");
    }
    let signature = identity.sign(&text)?;
    let written = socket.write_all(&signature).await;
    written.context("answer with a signature")
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Elsewhere {
    socket: std::sync::Arc<Mutex<UnixStream>>,
}

impl Elsewhere {
    pub fn new(socket: UnixStream) -> Elsewhere {
        Elsewhere {
            socket: std::sync::Arc::new(Mutex::new(socket)),
        }
    }
}

impl SigningKey for Elsewhere {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let asker = Elsewhere {
            socket: self.socket.clone(),
        };
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(asker) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Elsewhere {
    /// Blocks while the daemon signs: a fraction of a millisecond, and a worker in its handshake has nothing else to do.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let refused = |error: std::io::Error| {
            rustls::Error::General(format!("the daemon signs not: {error}"))
        };
        let length = u16::try_from(text.len())
            .map_err(|_| rustls::Error::General("the text to sign is too long".into()))?;
        let mut socket = self.socket.lock().unwrap_or_else(|held| held.into_inner());
        let asked = [&length.to_be_bytes()[..], text].concat();
        socket.write_all(&asked).map_err(refused)?;
        let mut signature = vec![0; SIGNATURE_BYTES];
        socket.read_exact(&mut signature).map_err(refused)?;
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(context: &[u8], hash: usize) -> Vec<u8> {
        [&[b' '; 64][..], context, &[0], &vec![7; hash]].concat()
    }

    #[test]
    fn only_a_handshake_of_the_own_side_is_signed() {
        for hash in HASHES {
            assert!(fits(&text(CONTEXT_CLIENT, hash), Side::Dialled));
            assert!(fits(&text(CONTEXT_SERVER, hash), Side::Accepted));
            assert!(!fits(&text(CONTEXT_SERVER, hash), Side::Dialled));
            assert!(!fits(&text(CONTEXT_CLIENT, hash), Side::Accepted));
            assert!(!fits(&text(CONTEXT_CLIENT, hash + 1), Side::Dialled));
            assert!(!fits(&text(CONTEXT_CLIENT, hash)[1..], Side::Dialled));
        }
        assert!(!fits(b"", Side::Dialled));
        assert!(!fits(
            b"standin link proof v1, dialling side",
            Side::Dialled
        ));
    }

    /// Two requests; gives how many bytes of signature came back for each.
    async fn ask(texts: [Vec<u8>; 2]) -> [usize; 2] {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let far = tokio::net::UnixStream::from_std(far).unwrap();
        let identity = Identity::ephemeral().unwrap();
        let serving = tokio::spawn(serve(far, identity, Side::Dialled));
        let asking = tokio::task::spawn_blocking(move || {
            let key = Elsewhere::new(near);
            texts.map(|text| key.sign(&text).map_or(0, |signature| signature.len()))
        });
        let _ = serving.await.unwrap();
        asking.await.unwrap()
    }

    #[tokio::test]
    async fn one_signature_for_each_connection() {
        let good = text(CONTEXT_CLIENT, 32);
        assert_eq!(ask([good.clone(), good.clone()]).await, [64, 0]);
        assert_eq!(ask([b"anything".to_vec(), good.clone()]).await, [0, 0]);
        assert_eq!(ask([vec![0; 60_000], good]).await, [0, 0]);
    }
}
