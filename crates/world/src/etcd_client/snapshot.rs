//! The snapshot stream into a file, as `etcdctl snapshot save` writes it: the pages of the db, then their SHA-256.
//!
//! The file is complete when it ends with the right hash and is a whole number of 512-byte sectors and 32 bytes long:
//! bbolt's page size is a power of two of at least 512 (server/etcdserver/api/v3rpc/maintenance.go, Snapshot).

use super::CALL;
use super::connect::{Connection, fault};
use crate::aside::AsideFile;
use crate::fault::{Fault, Outcome};
use crate::host::Saved;
use crate::local::paths::Root;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_client::SnapshotStreaming;
use rekindle_model::HostPath;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::sync::mpsc;

/// Length of the hash at the end.
const TRAILER_BYTES: usize = 32;
/// Longest silence within the stream: a member under a dying disk is slow, a dead one is silent for ever.
const IDLE: Duration = Duration::from_secs(30);
/// Parts of at most 64 KiB in flight between network and disk.
const IN_FLIGHT: usize = 64;

/// Streams a snapshot into `to`, checks it and gives it its name only then.
pub(super) async fn save(connection: &Connection, to: &HostPath, root: &Utf8Path) -> Outcome<Saved> {
    let path = Root::new(root).resolve(to)?;
    let mut client = connection.client().await?;
    let stream = connection.within(CALL, client.snapshot()).await?;
    let (parts, received) = mpsc::channel(IN_FLIGHT);
    let writer = tokio::task::spawn_blocking(move || write(path, received));
    let pumped = pump(stream, parts).await;
    let written = writer.await.map_err(|e| Fault::failed(format!("the writing thread died: {e}")))?;
    // What the disk said explains a broken pipe; a stream that broke explains a short file.
    match (pumped, written) {
        (Err(fault), Ok(_) | Err(_)) if fault.what != WRITER_GONE => Err(fault),
        (_, written) => written,
    }
}

const WRITER_GONE: &str = "the writer stopped";

/// What goes to the writer: bytes, or the word that the stream ended as it should.
enum Part {
    Bytes(Vec<u8>),
    End,
}

async fn pump(mut stream: SnapshotStreaming, parts: mpsc::Sender<Part>) -> Outcome<()> {
    let send = |part| async { parts.send(part).await.map_err(|_| Fault::failed(WRITER_GONE)) };
    loop {
        let next = tokio::time::timeout(IDLE, stream.message()).await;
        let next =
            next.map_err(|_| Fault::unavailable(format!("the stream was silent for {} s", IDLE.as_secs())))?;
        let Some(message) = next.map_err(fault)? else { break };
        // When reading its db fails, etcd sends empty messages for ever.
        if message.blob().is_empty() && message.remaining_bytes() > 0 {
            return Err(Fault::failed(format!(
                "etcd could not read its db: {} bytes not sent",
                message.remaining_bytes()
            )));
        }
        send(Part::Bytes(message.blob().to_vec())).await?;
    }
    send(Part::End).await
}

/// Writes and hashes on a thread of its own. Without [`Part::End`] the file never gets its name.
fn write(path: Utf8PathBuf, mut parts: mpsc::Receiver<Part>) -> Outcome<Saved> {
    let mut file = AsideFile::create(&path)?;
    let mut sum = Sha256::new();
    let mut bytes = 0_u64;
    let mut tail: Vec<u8> = Vec::new(); // the last bytes, which may be the trailer
    loop {
        match parts.blocking_recv() {
            Some(Part::Bytes(part)) => {
                file.write_all(&part)?;
                bytes = bytes.saturating_add(part.len() as u64);
                tail.extend_from_slice(&part);
                let db = tail.len().saturating_sub(TRAILER_BYTES);
                sum.update(tail.drain(..db).as_slice());
            }
            Some(Part::End) => break,
            None => return Err(Fault::failed("the stream broke off")),
        }
    }
    let sha256 = sum.finalize();
    if bytes % 512 != TRAILER_BYTES as u64 || tail.as_slice() != sha256.as_slice() {
        return Err(Fault::failed(format!(
            "the {bytes} bytes received do not end with their SHA-256: the stream was cut or garbled"
        )));
    }
    file.finish()?;
    let sha256 = sha256.iter().map(|b| format!("{b:02x}")).collect();
    Ok(Saved { bytes, sha256, has_trailer: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Utf8Path, parts: Vec<Part>) -> Outcome<Saved> {
        let (sender, receiver) = mpsc::channel(parts.len() + 1);
        for part in parts {
            sender.try_send(part).ok().unwrap();
        }
        drop(sender);
        write(path.to_owned(), receiver)
    }

    // A snapshot cut short, garbled, or with its end not announced must never stand under its name: it would be
    // taken for a good one in the next disaster. How the stream is divided must not matter.
    #[test]
    fn only_a_whole_stream_becomes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("snapshot.db");
        let mut good = vec![7_u8; 4096];
        good.extend(Sha256::digest(&good));
        let split = |size: usize, bytes: &[u8]| -> Vec<Part> {
            bytes.chunks(size).map(|c| Part::Bytes(c.to_vec())).chain([Part::End]).collect()
        };
        for size in [1, 31, 32, 33, 4096, 4128] {
            let saved = written(&path, split(size, &good)).unwrap();
            assert_eq!((saved.bytes, saved.has_trailer), (4128, true));
            assert_eq!(std::fs::read(&path).unwrap(), good);
            std::fs::remove_file(&path).unwrap();
        }
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        let cases =
            [split(1000, &flipped), split(1000, &good[..4096]), split(10, &good[..20]), split(9, &[])];
        for case in cases {
            assert!(written(&path, case).unwrap_err().what.contains("SHA-256"));
        }
        let unannounced = vec![Part::Bytes(good.clone())];
        assert!(written(&path, unannounced).unwrap_err().what.contains("broke off"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
