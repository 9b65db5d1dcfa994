//! Workers that lie: played in this process, at the other end of the daemon's socket.

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use jiff::Timestamp;
    use tokio::net::UnixStream;

    use super::super::*;
    use crate::logic::prefix::unhex;
    use crate::peer::codec::{FrameReader, FrameWriter};
    use crate::peer::frame::Frame;
    use crate::peer::message::{Answer, MESSAGE_BYTES_MAX, PROTOCOL, Request};
    use crate::peer::prove::text;

    fn name(word: &str) -> NodeName {
        NodeName::parse(word).unwrap()
    }

    fn hello(node: &str) -> Hello {
        Hello {
            node: name(node),
            version: String::new(),
            protocol: PROTOCOL,
            capabilities: vec![],
            now: Timestamp::UNIX_EPOCH,
            stream_version_max: 0,
        }
    }

    fn brisk() -> Timing {
        Timing {
            beat: Duration::from_millis(100),
            silence: Duration::from_millis(400),
            hello: Duration::from_secs(5),
            ..Timing::default()
        }
    }

    /// alder's daemon, and the keys that birch and a stranger hold.
    struct Stage {
        alder: Identity,
        birch: Identity,
        mallory: Identity,
    }

    fn stage() -> Stage {
        let draw = || Identity::ephemeral().unwrap();
        Stage {
            alder: draw(),
            birch: draw(),
            mallory: draw(),
        }
    }

    impl Stage {
        /// What alder makes of a worker that says it is linked to birch.
        async fn up(&self, socket: OwnedFd, theirs: Hello) -> Result<(Link, Incoming)> {
            let workers = Workers::new(self.alder.clone(), None, brisk());
            let with = Expected {
                name: name("birch"),
                fingerprint: self.birch.fingerprint(),
            };
            let (held, ours) = (Held::played(socket), hello("alder"));
            workers
                .up(held, Side::Dialled, &ours, theirs, with, None)
                .await
        }

        /// What birch's daemon would sign.
        fn honest(&self, nonce: &[u8; 32]) -> Vec<u8> {
            let (birch, alder) = (name("birch"), name("alder"));
            let ends = Ends {
                signer: &birch,
                signer_key: self.birch.fingerprint(),
                asker: &alder,
                asker_key: self.alder.fingerprint(),
            };
            text(1, Side::Accepted, ends, nonce)
        }
    }

    fn proof(key: &Identity, text: &[u8]) -> Answer {
        Answer::Proof {
            key: hex(&key.public()),
            signature: hex(&key.sign(text).unwrap()),
        }
    }

    type Reader = FrameReader<tokio::net::unix::OwnedReadHalf>;
    type Writer = FrameWriter<tokio::net::unix::OwnedWriteHalf>;

    fn open(lane: OwnedFd) -> (Reader, Writer) {
        let (read, write) = UnixStream::from_std(lane.into()).unwrap().into_split();
        let reader = FrameReader::new(read, MESSAGE_BYTES_MAX);
        (reader, FrameWriter::new(write))
    }

    /// Asks alder's daemon for its proof, and gives it.
    async fn ask(worker: &Channel, nonce: String) -> Answer {
        worker.send(&Report::Arrived, None).await.unwrap();
        let Some((Order::Take, Some(lane))) = worker.recv().await.unwrap() else {
            panic!("the daemon gives no socket")
        };
        let (mut reader, mut writer) = open(lane);
        writer.message(&Request::Prove { nonce }).await.unwrap();
        reader.message().await.unwrap()
    }

    /// The socket of the daemon's own question, and its nonce.
    async fn asked(worker: &Channel) -> (Reader, Writer, String) {
        let Some((Order::Open, Some(lane))) = worker.recv().await.unwrap() else {
            panic!("the daemon asks nothing")
        };
        let (mut reader, writer) = open(lane);
        let Request::Prove { nonce } = reader.message().await.unwrap() else {
            panic!("the daemon asks for something else")
        };
        (reader, writer, nonce)
    }

    /// The link as alder sees it, when the worker answers alder's question in the given way.
    async fn check(
        stage: &Stage,
        answer: impl AsyncFn(&Channel, [u8; 32]) -> Answer,
    ) -> Result<Link> {
        let (ours, theirs) = channel::pair().unwrap();
        let worker = Channel::new(theirs, Takes::Descriptors).unwrap();
        let playing = async {
            let (_reader, mut writer, nonce) = asked(&worker).await;
            let nonce = unhex(&nonce).unwrap().try_into().unwrap();
            let answer = answer(&worker, nonce).await;
            writer.message(&answer).await.unwrap();
            // One that got through is asked for alder's proof too, if it was not before.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            up = stage.up(ours, hello("birch")) => up.map(|(link, _)| link),
            () = playing => unreachable!(),
        }
    }

    #[tokio::test]
    async fn who_holds_the_pinned_key_is_believed() {
        let stage = stage();
        let up = check(&stage, async |worker, nonce| {
            ask(worker, hex(&[1; 32])).await;
            proof(&stage.birch, &stage.honest(&nonce))
        });
        up.await.unwrap();
    }

    /// Everything a worker can say that does not hold birch's key.
    #[tokio::test]
    async fn a_worker_that_lies_about_the_peer_is_refused() {
        let stage = stage();
        let (birch, mallory) = (&stage.birch, &stage.mallory);
        let refuse = async |up: Result<Link>, case: &str| {
            let error = up.expect_err(case);
            assert_eq!(Failure::code_of(&error), Code::Refused, "{case}: {error:#}");
            let text = format!("{error:#}");
            assert!(
                text.contains("birch does not prove its key"),
                "{case}: {text}"
            );
        };
        let up = check(&stage, async |worker, nonce| {
            ask(worker, hex(&nonce)).await;
            proof(mallory, &stage.honest(&nonce))
        });
        refuse(up.await, "another key").await;
        let up = check(&stage, async |worker, nonce| {
            ask(worker, hex(&nonce)).await;
            let Answer::Proof { signature, .. } = proof(mallory, &stage.honest(&nonce)) else {
                unreachable!()
            };
            let key = hex(&birch.public());
            Answer::Proof { key, signature }
        });
        refuse(up.await, "another key behind the pinned one").await;
        // Alder's own words thrown back at it.
        let up = check(&stage, async |worker, nonce| ask(worker, hex(&nonce)).await);
        refuse(up.await, "reflected").await;
        let up = check(&stage, async |worker, nonce| {
            ask(worker, hex(&nonce)).await;
            proof(birch, &stage.honest(&[9; 32]))
        });
        refuse(up.await, "a proof of another link").await;
    }

    #[tokio::test]
    async fn a_worker_that_gives_another_name_is_refused() {
        let stage = stage();
        let (ours, _theirs) = channel::pair().unwrap();
        let error = stage.up(ours, hello("cedar")).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("birch") && text.contains("cedar"), "{text}");
    }

    /// A link that was proved, and its worker.
    async fn proved(stage: &Stage) -> (Link, Incoming, Channel) {
        let (ours, theirs) = channel::pair().unwrap();
        let worker = Channel::new(theirs, Takes::Descriptors).unwrap();
        let playing = async {
            let (_reader, mut writer, nonce) = asked(&worker).await;
            let nonce = unhex(&nonce).unwrap().try_into().unwrap();
            let answer = proof(&stage.birch, &stage.honest(&nonce));
            writer.message(&answer).await.unwrap();
            ask(&worker, hex(&[1; 32])).await;
        };
        let (up, ()) = tokio::join!(stage.up(ours, hello("birch")), playing);
        let (link, incoming) = up.unwrap();
        (link, incoming, worker)
    }

    /// How the link ends when the worker says this.
    async fn end_of(report: Report, expected: &str) {
        let (link, _incoming, worker) = proved(&stage()).await;
        worker.send(&report, None).await.unwrap();
        let why = link.closed().await;
        assert!(why.contains(expected), "{why}");
    }

    #[tokio::test]
    async fn words_out_of_turn_end_the_link() {
        let what = "bad\u{1b}[2J".to_owned();
        end_of(Report::Down { why: what }, "bad [2J").await;
        let key = Identity::ephemeral().unwrap().fingerprint();
        let hello = Box::new(hello("birch"));
        end_of(Report::Knock { key, hello }, "out of turn").await;
    }

    #[tokio::test]
    async fn what_is_not_a_word_ends_the_link() {
        let (link, _incoming, worker) = proved(&stage()).await;
        worker.send(&"rubbish", None).await.unwrap();
        let why = link.closed().await;
        assert!(why.contains("broke the rules"), "{why}");
    }

    #[tokio::test]
    async fn a_worker_that_falls_silent_ends_the_link() {
        let (link, _incoming, _worker) = proved(&stage()).await;
        let why = link.closed().await;
        assert!(why.contains("said nothing for 0.5 s"), "{why}");
    }

    #[tokio::test]
    async fn more_exchanges_than_a_peer_may_have_end_the_link() {
        let (link, _incoming, worker) = proved(&stage()).await;
        let mut held = Vec::new();
        loop {
            if worker.send(&Report::Arrived, None).await.is_err() {
                break;
            }
            match worker.recv::<Order>().await {
                Ok(Some((Order::Take, lane))) => held.push(lane),
                _ => break,
            }
        }
        let why = link.closed().await;
        assert!(why.contains("too many exchanges"), "{why}");
        assert_eq!(held.len(), crate::peer::link::INCOMING_MAX + 1);
    }

    /// Frames that an honest worker does not hand over.
    #[tokio::test]
    async fn frames_that_are_not_checked_end_the_link() {
        let zstd = Frame::Zstd {
            unpacked: 5,
            packed: vec![1, 2, 3],
        };
        for bad in [zstd, Frame::Message(b"rubbish".to_vec())] {
            let (link, _incoming, worker) = proved(&stage()).await;
            let playing = async {
                let Some((Order::Open, Some(lane))) = worker.recv().await.unwrap() else {
                    panic!("the daemon asks nothing")
                };
                let (mut reader, mut writer) = open(lane);
                reader.message::<Request>().await.unwrap();
                writer.frame(&bad).await.unwrap();
                reader
            };
            let asking = async {
                let mut exchange = link.open(&Request::Ping).await.unwrap();
                exchange.next::<Answer>().await.unwrap_err()
            };
            let (_reader, error) = tokio::join!(playing, asking);
            assert_eq!(Failure::code_of(&error), Code::Unreachable, "{error:#}");
            let why = link.closed().await;
            assert!(why.contains("broke the rules"), "{why}");
        }
    }
}
