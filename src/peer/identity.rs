//! Who this node is: its key file, the certificate made from it, and fingerprints of public keys.
//!
//! Promise: a key file is created whole, mode 0600, and never overwritten; a key that others could have read is not used. The
//! fingerprint depends on the public key alone, so the certificate (made anew at each start) may change freely. The
//! private key is wiped from the buffers of this file and is never printed.
//! A crash while creating leaves at most `<path>.<uuid>.new`, mode 0600: a key nobody has seen, safe to delete.
//!
//! It deliberately does not know where the key file lies nor who is paired with whom.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Code, Failure};

/// Largest key file read, in bytes; ours are about 230.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Largest certificate parsed, in bytes; ours are about 300.
const CERTIFICATE_BYTES_MAX: usize = 4 * 1024;

/// An Ed25519 public key, in bytes (RFC 8032).
pub(super) const PUBLIC_BYTES: usize = 32;

/// What stands before the key in the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER). Spelled as ssh does: `SHA256:` and 43 characters of base64.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// A word that is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key fingerprint: expected SHA256: and 43 characters of base64")]
pub struct BadFingerprint(pub String);

impl Fingerprint {
    /// The fingerprint of the key in a certificate, DER. The certificate is parsed within bounds, its names, dates and
    /// signature are ignored.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Fingerprint, rustls::Error> {
        let bad = || rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(bad());
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        Fingerprint::digest(parsed.subject_public_key_info().as_ref()).ok_or_else(bad)
    }

    /// The fingerprint of an Ed25519 public key.
    pub(super) fn of_public(public: &[u8; PUBLIC_BYTES]) -> Option<Fingerprint> {
        Fingerprint::digest(&[&SPKI_HEAD[..], &public[..]].concat())
    }

    fn digest(spki: &[u8]) -> Option<Fingerprint> {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        digest.as_ref().try_into().ok().map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("SHA256:{}", STANDARD_NO_PAD.encode(self.0)))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(word: &str) -> Result<Fingerprint, BadFingerprint> {
        word.strip_prefix("SHA256:")
            .and_then(|digits| STANDARD_NO_PAD.decode(digits).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Fingerprint)
            .ok_or_else(|| BadFingerprint(word.to_owned()))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = BadFingerprint;

    fn try_from(word: String) -> Result<Fingerprint, BadFingerprint> {
        word.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// This node's key and the certificate that shows it. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    key: Arc<SingleCertAndKey>,
    fingerprint: Fingerprint,
    public: [u8; PUBLIC_BYTES],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// Draws a new Ed25519 key and writes it to `path` (PKCS#8 PEM, mode 0600). Refuses when anything is there already.
    pub fn create(path: &Path) -> Result<Identity> {
        let mut pair = draw()?;
        let pem = Zeroizing::new(pair.serialize_pem());
        let identity = Identity::of(&pair);
        pair.zeroize();
        write_new(path, pem.as_bytes())
            .with_context(|| format!("create node key {}", path.display()))?;
        identity
    }

    /// Reads the key that [`Identity::create`] wrote. A key file that group or others may read is refused.
    pub fn load(path: &Path) -> Result<Identity> {
        let pem =
            read_private(path).with_context(|| format!("read node key {}", path.display()))?;
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map_err(|error| anyhow::anyhow!("not a PKCS#8 PEM file: {error}"))
            .with_context(|| format!("read node key {}", path.display()))?;
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519);
        der.zeroize();
        let mut pair = pair.with_context(|| format!("use node key {}", path.display()))?;
        let identity = Identity::of(&pair);
        pair.zeroize();
        identity
    }

    /// A key that lives as long as the process: for tests and throw-away ends.
    pub fn ephemeral() -> Result<Identity> {
        let mut pair = draw()?;
        let identity = Identity::of(&pair);
        pair.zeroize();
        identity
    }

    /// An identity whose private key another process keeps: `certificate` (DER) shows the key, `signer` has it sign.
    pub(super) fn elsewhere(
        certificate: CertificateDer<'static>,
        signer: Arc<dyn SigningKey>,
    ) -> Result<Identity> {
        let fingerprint =
            Fingerprint::of_certificate(&certificate).context("parse our own certificate")?;
        let public = public_key(&certificate).context("parse our own certificate")?;
        let key = Arc::new(CertifiedKey::new(vec![certificate], signer).into());
        Ok(Identity {
            key,
            fingerprint,
            public,
        })
    }

    /// The public key, as Ed25519 has it (RFC 8032).
    pub(super) fn public(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }

    /// The certificate that shows the key, DER.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>> {
        let certificate = self.certified()?.cert.first().cloned();
        certificate.context("this node has no certificate")
    }

    /// An Ed25519 signature. What is signed is the caller's care: every kind of text needs a beginning of its own.
    pub(super) fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let scheme = [SignatureScheme::ED25519];
        let signer = self.certified()?.key.choose_scheme(&scheme);
        let signer = signer.context("this node's key is not an Ed25519 key")?;
        signer.sign(text).context("sign with this node's key")
    }

    fn certified(&self) -> Result<Arc<CertifiedKey>> {
        let key = self.key.resolve(&[], &[SignatureScheme::ED25519]);
        key.context("this node has no Ed25519 key")
    }

    /// Who this node is, to its peers.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn certified_key(&self) -> Arc<SingleCertAndKey> {
        self.key.clone()
    }

    /// What ring keeps for signing stays in its own memory; the caller wipes the pair.
    fn of(pair: &rcgen::KeyPair) -> Result<Identity> {
        let mut parameters = rcgen::CertificateParams::new(vec!["standin".to_owned()])
            .context("describe the certificate")?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "standin");
        let certificate = parameters
            .self_signed(pair)
            .context("sign the certificate")?;
        let der = PrivatePkcs8KeyDer::from(pair.serialized_der());
        let signer =
            rustls::crypto::ring::sign::any_eddsa_type(&der).context("load the key for TLS")?;
        let certificate = certificate.der().clone();
        let fingerprint =
            Fingerprint::of_certificate(&certificate).context("parse our own certificate")?;
        let public = public_key(&certificate).context("parse our own certificate")?;
        let key = Arc::new(CertifiedKey::new(vec![certificate], signer).into());
        Ok(Identity {
            key,
            fingerprint,
            public,
        })
    }
}

/// The Ed25519 key in a certificate.
fn public_key(certificate: &CertificateDer<'_>) -> Result<[u8; PUBLIC_BYTES]> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let spki = parsed.subject_public_key_info();
    let public = spki.as_ref().strip_prefix(&SPKI_HEAD[..]);
    public
        .and_then(|public| public.try_into().ok())
        .context("it does not hold an Ed25519 key")
}

fn draw() -> Result<rcgen::KeyPair> {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).context("draw a node key")
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        anyhow::bail!("not a regular file");
    }
    if facts.mode() & 0o077 != 0 {
        let what = format!(
            "others may have read it (mode {:04o})",
            facts.mode() & 0o7777
        );
        let hint = format!(
            "if nobody did, run `chmod 600 {}`; else move it away, start again for a new key, and pair again",
            path.display()
        );
        return Err(Failure::new(Code::Refused, what).hint(hint).into());
    }
    let mut pem = Zeroizing::new(Vec::with_capacity(4096));
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut pem)?;
    Ok(pem)
}

/// Whole or not at all, and never over something: a private name first, then a rename that refuses to replace.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", uuid::Uuid::new_v4()));
    let fresh = Path::new(&name);
    let written = write_private(fresh, bytes).and_then(|()| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, fresh, CWD, path, RenameFlags::NOREPLACE).map_err(std::io::Error::from)
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(fresh);
        if error.kind() == ErrorKind::AlreadyExists {
            let failure = Failure::new(Code::Refused, "there is a key already");
            return Err(failure
                .hint("a node keeps its key; remove the file only to become a new node")
                .into());
        }
        return Err(error.into());
    }
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_created_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let created = Identity::create(&path).unwrap();
        let loaded = Identity::load(&path).unwrap();
        assert_eq!(created.fingerprint(), loaded.fingerprint());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(
            folder.path().read_dir().unwrap().count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let first = Identity::create(&path).unwrap();
        let error = Identity::create(&path).unwrap_err();
        assert_eq!(Failure::code_of(&error), Code::Refused, "{error:#}");
        assert_eq!(
            Identity::load(&path).unwrap().fingerprint(),
            first.fingerprint()
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_key_others_can_read_is_refused_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        Identity::create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert!(
            Failure::of(&error)
                .unwrap()
                .hint
                .as_deref()
                .unwrap()
                .contains("chmod 600"),
            "{error:#}"
        );
    }

    #[test]
    fn rubbish_is_not_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        write_private(
            &path,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        assert!(Identity::load(&path).is_err());
        assert!(Identity::load(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn fingerprints_are_spelled_exactly() {
        let fingerprint = Identity::ephemeral().unwrap().fingerprint();
        let word = fingerprint.to_string();
        assert_eq!(word.len(), 50);
        assert_eq!(word.parse::<Fingerprint>().unwrap(), fingerprint);
        for bad in [
            "",
            "SHA256:",
            &word[..49],
            &word[7..],
            &format!("{word}="),
            &format!("{word}A"),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rubbish_is_not_a_certificate() {
        for bytes in [
            vec![],
            vec![0x30],
            vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            vec![0; 100_000],
        ] {
            assert!(Fingerprint::of_certificate(&CertificateDer::from(bytes)).is_err());
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let identity = Identity::ephemeral().unwrap();
        assert_eq!(
            format!("{identity:?}"),
            format!("Identity({})", identity.fingerprint())
        );
    }
}
