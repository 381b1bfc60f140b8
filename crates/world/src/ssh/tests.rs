//! Both ends against a peer that lies: in memory, frame by frame. The honest case is proved against a real sshd in
//! `tests/ssh.rs`.

use super::channel::Channel;
use super::frame::{self, Body, Frame, MAX_DATA_BYTES, PREAMBLE, Packed};
use super::serve::serve;
use super::wire::parse_reply;
use crate::fault::Fault;
use crate::host::{HostErrorKind, Reply, Request};
use crate::local::LocalHost;
use camino::Utf8PathBuf;
use rekindle_model::HostId;
use sha2::{Digest, Sha256};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf};

/// A serving far end, and the pipes to it.
struct Far {
    to: WriteHalf<DuplexStream>,
    from: BufReader<ReadHalf<DuplexStream>>,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Far {
    async fn start() -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (stdin, stdout) = tokio::io::split(far);
        let host = Arc::new(LocalHost::new(HostId::local(), "/"));
        let served = tokio::spawn(serve(host, stdin, stdout));
        let (from, to) = tokio::io::split(near);
        let mut from = BufReader::new(from);
        let mut line = String::new();
        from.read_line(&mut line).await.unwrap();
        assert_eq!(line.trim_end(), PREAMBLE);
        Self { to, from, served }
    }

    async fn send(&mut self, id: u64, body: Body) {
        frame::write(&mut self.to, &Frame { id, body }).await.unwrap();
    }

    /// The next reply; credit before it is passed over.
    async fn reply(&mut self) -> (u64, Result<Reply, Fault>) {
        loop {
            match frame::read(&mut self.from).await.unwrap().unwrap() {
                Frame { id, body: Body::Reply(json) } => return (id, parse_reply(&json)),
                Frame { body: Body::Credit(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Closes stdin and waits for the end.
    async fn end(self) -> std::io::Result<()> {
        let Self { mut to, mut from, served } = self;
        to.shutdown().await.unwrap();
        tokio::spawn(async move { while let Ok(Some(_)) = frame::read(&mut from).await {} });
        served.await.unwrap()
    }
}

fn path_json(path: &Utf8PathBuf) -> Vec<u8> {
    serde_json::to_vec(path).unwrap()
}

// A file that is cut short, longer than told, garbled, cancelled or out of turn never gets its name, and leaves no
// piece behind; the channel goes on.
#[tokio::test]
async fn a_lying_sender_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let to = Utf8PathBuf::from_path_buf(folder.path().join("file")).unwrap();
    let data = vec![7_u8; 1000];
    let sum: [u8; 32] = Sha256::digest(&data).into();
    let packed = |plain_bytes, zstd| Body::Packed(Packed { plain_bytes, zstd });
    let zstd = zstd::bulk::compress(&data, 1).unwrap();
    let cases: [(&str, Vec<Body>); 9] = [
        ("a packed piece", vec![Body::Size(1000), packed(1000, data.clone()), Body::End(sum)]),
        ("a packed piece", vec![Body::Size(999), packed(999, zstd.clone()), Body::End(sum)]),
        ("a packed piece of 1001", vec![Body::Size(1001), packed(1001, zstd), Body::End(sum)]),
        ("SHA-256", vec![Body::Size(1000), Body::Data(data.clone()), Body::End([0; 32])]),
        ("1000 bytes came instead of 2000", vec![Body::Size(2000), Body::Data(data.clone()), Body::End(sum)]),
        ("more bytes came than the 999", vec![Body::Size(999), Body::Data(data.clone()), Body::End(sum)]),
        ("cancelled", vec![Body::Size(1000), Body::Cancel]),
        ("out of turn", vec![Body::Data(data.clone()), Body::End(sum)]),
        ("out of turn", vec![Body::Size(1000), Body::Size(1000)]),
    ];
    let mut far = Far::start().await;
    for (id, (words, bodies)) in (1..).zip(cases) {
        far.send(id, Body::Put(path_json(&to))).await;
        for body in bodies {
            far.send(id, body).await;
        }
        let (replied, reply) = far.reply().await;
        let fault = reply.unwrap_err();
        assert!(replied == id && fault.what.contains(words), "{words}: {}", fault.what);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{words}");
    }
    for body in [Body::Put(path_json(&to)), Body::Size(1000), Body::Data(data), Body::End(sum)] {
        far.send(100, body).await;
    }
    assert_eq!(far.reply().await.1.unwrap(), Reply::Done);
    assert_eq!(std::fs::metadata(&to).unwrap().len(), 1000);

    // the near end goes away in the middle of a file
    far.send(101, Body::Put(path_json(&to))).await;
    far.send(101, Body::Size(5)).await;
    far.end().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

// Paths that climb, requests that are none, and frames for nothing: an answer that says so, or silence.
#[tokio::test]
async fn nonsense_is_answered_as_such() {
    let mut far = Far::start().await;
    far.send(50, Body::Data(vec![1])).await;
    far.send(51, Body::Cancel).await;
    far.send(1, Body::Request(b"{\"Format\":\"everything\"}".to_vec())).await;
    assert!(far.reply().await.1.unwrap_err().what.contains("does not know"));
    far.send(2, Body::Request(vec![b'['; 100_000])).await;
    assert!(far.reply().await.1.is_err());
    far.send(3, Body::Get(b"\"/etc/../etc/passwd\"".to_vec())).await;
    assert_eq!(far.reply().await.1.unwrap_err().kind, HostErrorKind::Refused);
    far.send(4, Body::Get(b"\"/proc/self\"".to_vec())).await;
    assert_eq!(far.reply().await.1.unwrap_err().kind, HostErrorKind::Refused);
    far.end().await.unwrap();
}

// What can't be a frame, an id used twice, a flood of requests and one of data end the channel instead of its memory.
#[tokio::test]
async fn a_hostile_near_end_is_hung_up_on() {
    let mut garbage = Far::start().await;
    garbage.to.write_all(b"SSH-2.0-OpenSSH_9.2 and more").await.unwrap();
    assert_eq!(garbage.end().await.unwrap_err().kind(), ErrorKind::InvalidData);

    let folder = tempfile::tempdir().unwrap();
    let to = Utf8PathBuf::from_path_buf(folder.path().join("file")).unwrap();
    let mut twice = Far::start().await;
    twice.send(1, Body::Put(path_json(&to))).await;
    twice.send(1, Body::Put(path_json(&to))).await;
    assert_eq!(twice.end().await.unwrap_err().kind(), ErrorKind::InvalidData);

    let mut many = Far::start().await;
    for id in 0..300 {
        many.send(id, Body::Put(path_json(&to))).await;
    }
    assert_eq!(many.end().await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A near end whose far end is the test.
fn near() -> (Arc<Channel>, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (from, to) = tokio::io::split(near);
    let why = |ended: std::io::Result<()>| async move { format!("ended: {ended:?}") };
    let channel = Arc::new(Channel::new(from, to, why));
    let (from, to) = tokio::io::split(far);
    (channel, from, to)
}

// The host answers with another request's reply, with something that is no reply, with a request of its own, with a
// flood, or goes away: the one request or all of them fail, soon, and nothing hangs.
#[tokio::test]
async fn a_hostile_far_end_fails_what_waits_for_it() {
    let identity = |channel: &Arc<Channel>| {
        let channel = channel.clone();
        tokio::spawn(async move {
            let asked = channel.call(&Request::Identity);
            tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap().unwrap_err()
        })
    };
    let (channel, mut from, mut to) = near();
    let asking = identity(&channel);
    let id = frame::read(&mut from).await.unwrap().unwrap().id;
    let done = Body::Reply(br#"{"Ok":"Done"}"#.to_vec());
    frame::write(&mut to, &Frame { id: id + 1, body: done }).await.unwrap(); // nobody waits for it
    frame::write(&mut to, &Frame { id, body: Body::Reply(b"{}".to_vec()) }).await.unwrap();
    assert!(asking.await.unwrap().what.contains("not one"));

    let (asking, beside) = (identity(&channel), identity(&channel));
    frame::read(&mut from).await.unwrap().unwrap();
    let body = Body::Request(b"\"Identity\"".to_vec());
    frame::write(&mut to, &Frame { id: 1, body }).await.unwrap();
    for asked in [asking, beside, identity(&channel)] {
        let fault = asked.await.unwrap();
        assert_eq!(fault.kind, HostErrorKind::Unreachable);
        assert!(fault.what.contains("sent a request"), "{}", fault.what);
    }

    let (channel, mut from, mut to) = near();
    let asking = identity(&channel);
    let id = frame::read(&mut from).await.unwrap().unwrap().id;
    let flood = async {
        let data = Frame { id, body: Body::Data(vec![0; MAX_DATA_BYTES]) };
        while frame::write(&mut to, &data).await.is_ok() {}
    };
    let flood = tokio::time::timeout(Duration::from_secs(2), flood);
    let (fault, _) = tokio::join!(asking, flood);
    assert!(fault.unwrap().what.contains("piece of a file"));

    let (channel, from, to) = near();
    let asking = identity(&channel);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop((from, to));
    assert_eq!(asking.await.unwrap().kind, HostErrorKind::Unreachable);
}
