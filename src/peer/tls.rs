//! TLS between nodes: version 1.3 only, both sides show a key, no authority signs anything.
//!
//! Promise: a handshake that succeeds proves that the other side holds the private key of the fingerprint returned. The
//! dialling side names the one key it accepts; the accepting side takes any key and leaves the judgement to its caller.
//! Names, dates and issuers in certificates mean nothing here; sessions are never resumed, so that every connection
//! proves possession anew.
//!
//! It deliberately does not know peers by name, nor what is said inside.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{CommonState, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::identity::{Fingerprint, Identity};
use crate::error::{Code, Failure};

/// Application protocol (ALPN) of links and pairing. The number rises when a handshake of an old node must fail.
pub const ALPN: &[u8] = b"standin/1";

/// Dials: the handshake succeeds only with the holder of the key `expected`.
pub async fn connect<S>(
    stream: S,
    identity: &Identity,
    expected: Fingerprint,
) -> Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pin = Arc::new(PinnedServer {
        provider: provider(),
        expected,
        seen: OnceLock::new(),
    });
    let config = client_config(identity, pin.clone()).context("set up TLS")?;
    let name = ServerName::try_from("standin").context("set up TLS")?;
    let connector = TlsConnector::from(Arc::new(config));
    match connector.connect(name, stream).await {
        Ok(tls) => {
            require_alpn(tls.get_ref().1)?;
            Ok(tls.into())
        }
        Err(error) => Err(match pin.seen.get() {
            Some(seen) if *seen != expected => wrong_key(*seen, expected).into(),
            _ => anyhow!(error).context("TLS handshake"),
        }),
    }
}

/// Accepts: any key that the other side can prove; the caller decides what that key may do.
pub async fn accept<S>(stream: S, config: Arc<ServerConfig>) -> Result<(TlsStream<S>, Fingerprint)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let tls = TlsAcceptor::from(config)
        .accept(stream)
        .await
        .context("TLS handshake")?;
    let session = tls.get_ref().1;
    require_alpn(session)?;
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .context("the other side showed no key")?;
    let fingerprint =
        Fingerprint::of_certificate(certificate).context("read the other side's key")?;
    Ok((tls.into(), fingerprint))
}

/// What [`accept`] needs, made once.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>> {
    let provider = provider();
    let verifier = Arc::new(AnyClient {
        provider: provider.clone(),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("set up TLS")?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.certified_key());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(
    identity: &Identity,
    pin: Arc<PinnedServer>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(pin.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_client_cert_resolver(identity.certified_key());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn require_alpn(session: &CommonState) -> Result<()> {
    if session.alpn_protocol() == Some(ALPN) {
        return Ok(());
    }
    Err(anyhow!(
        "the other side does not speak the standin protocol"
    ))
}

fn wrong_key(seen: Fingerprint, expected: Fingerprint) -> Failure {
    Failure::new(
        Code::Refused,
        format!("the key there is {seen}, but {expected} is pinned"),
    )
    .hint("if that node was set up anew, remove the pairing on both sides and pair again; else somebody is in between")
}

/// Possession of a key: the handshake is signed with Ed25519 by the key in the certificate.
fn verify_possession(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if signed.scheme != SignatureScheme::ED25519 {
        return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    verify_tls13_signature(
        message,
        certificate,
        signed,
        &provider.signature_verification_algorithms,
    )
}

/// TLS 1.2 is never negotiated; its verifiers say no.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
}

/// Accepts the one key that is pinned, and remembers which one it saw for the error message.
#[derive(Debug)]
struct PinnedServer {
    provider: Arc<CryptoProvider>,
    expected: Fingerprint,
    seen: OnceLock<Fingerprint>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = Fingerprint::of_certificate(certificate)?;
        let _ = self.seen.set(seen);
        if seen == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_possession(&self.provider, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Accepts every key that is proved; who it belongs to is decided after the handshake.
#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Fingerprint::of_certificate(certificate).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_possession(&self.provider, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn identity() -> Identity {
        Identity::ephemeral().unwrap()
    }

    #[tokio::test]
    async fn both_sides_learn_the_true_key() {
        let (client, server) = (identity(), identity());
        let (near, far) = tokio::io::duplex(1 << 16);
        let config = server_config(&server).unwrap();
        let (dialled, accepted) = tokio::join!(
            connect(near, &client, server.fingerprint()),
            accept(far, config)
        );
        let (mut accepted, seen) = accepted.unwrap();
        assert_eq!(seen, client.fingerprint());
        let mut dialled = dialled.unwrap();
        dialled.write_all(b"word").await.unwrap();
        dialled.flush().await.unwrap();
        let mut word = [0; 4];
        accepted.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
    }

    #[tokio::test]
    async fn another_key_is_refused_and_both_are_named() {
        let (client, server, other) = (identity(), identity(), identity());
        let (near, far) = tokio::io::duplex(1 << 16);
        let config = server_config(&server).unwrap();
        let (dialled, accepted) = tokio::join!(
            connect(near, &client, other.fingerprint()),
            accept(far, config)
        );
        let error = format!("{:#}", dialled.unwrap_err());
        assert!(error.contains(&server.fingerprint().to_string()), "{error}");
        assert!(error.contains(&other.fingerprint().to_string()), "{error}");
        assert!(accepted.is_err());
    }

    /// Shows the certificate of one key and signs with another: the stolen certificate proves nothing.
    #[tokio::test]
    async fn a_borrowed_certificate_is_refused() {
        let (honest, thief, server) = (identity(), identity(), identity());
        let signer: Arc<dyn SigningKey> = key_of(&thief);
        let certificate = certificate_of(&honest);
        let borrowed = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![certificate],
            signer,
        )));
        let pin = Arc::new(PinnedServer {
            provider: provider(),
            expected: server.fingerprint(),
            seen: OnceLock::new(),
        });
        let mut config = client_config(&thief, pin).unwrap();
        config.client_auth_cert_resolver = borrowed;
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("standin").unwrap();
        let (_, accepted) = tokio::join!(
            TlsConnector::from(Arc::new(config)).connect(name, near),
            accept(far, server_config(&server).unwrap())
        );
        assert!(accepted.is_err());
    }

    #[tokio::test]
    async fn a_client_without_a_key_is_refused() {
        let server = identity();
        let pin = Arc::new(PinnedServer {
            provider: provider(),
            expected: server.fingerprint(),
            seen: OnceLock::new(),
        });
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(pin)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("standin").unwrap();
        let (_, accepted) = tokio::join!(
            TlsConnector::from(Arc::new(config)).connect(name, near),
            accept(far, server_config(&server).unwrap())
        );
        assert!(accepted.is_err());
    }

    fn key_of(identity: &Identity) -> Arc<dyn SigningKey> {
        certified(identity).key.clone()
    }

    fn certificate_of(identity: &Identity) -> CertificateDer<'static> {
        certified(identity).cert[0].clone()
    }

    fn certified(identity: &Identity) -> Arc<CertifiedKey> {
        use rustls::client::ResolvesClientCert;
        identity
            .certified_key()
            .resolve(&[], &[SignatureScheme::ED25519])
            .unwrap()
    }
}
