//! Frames: how requests, replies and files share one channel. The bytes are drawn in `docs/formats/ssh-frames.md`.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The line that the far end writes before its first frame. What comes before it is noise of a login shell.
pub(super) const PREAMBLE: &str = "REKINDLE-FRAMES 2";
/// Longest JSON payload: the largest answer, 32 MiB of bytes, is 43 MiB in base64.
pub(super) const MAX_JSON_BYTES: usize = 64 << 20;
/// Longest piece of a file.
pub(super) const MAX_DATA_BYTES: usize = 64 << 10;
/// Bytes of one file that may be under way unacknowledged: 80 MB/s over 50 ms of round trip.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

const HEADER_BYTES: usize = 13;
/// The length of the piece before its zstd frame.
const PLAIN_BYTES_BYTES: usize = 4;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Names the request or the file; chosen by the near end, never used twice in a channel.
    pub(super) id: u64,
    /// What it carries.
    pub(super) body: Body,
}

/// What a frame carries. JSON is kept as bytes here, so that the codec does nothing but divide and bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// A request (JSON).
    Request(Vec<u8>),
    /// The end of a request or a file: what came of it (JSON).
    Reply(Vec<u8>),
    /// A file comes: its path (JSON).
    Put(Vec<u8>),
    /// A file is wanted: its path (JSON).
    Get(Vec<u8>),
    /// Length of the file that follows.
    Size(u64),
    /// A piece of a file.
    Data(Vec<u8>),
    /// A piece of a file, compressed.
    Packed(Packed),
    /// SHA-256 of the whole file.
    End([u8; 32]),
    /// So many bytes more may be sent.
    Credit(u64),
    /// The asking side has lost interest.
    Cancel,
}

/// A piece of a file as a zstd frame of its own, shorter than the piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// Length of the piece: 1 to `MAX_DATA_BYTES`.
    pub(super) plain_bytes: u32,
    /// The zstd frame.
    pub(super) zstd: Vec<u8>,
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Request(_) => 1,
            Self::Reply(_) => 2,
            Self::Put(_) => 3,
            Self::Get(_) => 4,
            Self::Size(_) => 5,
            Self::Data(_) => 6,
            Self::End(_) => 7,
            Self::Credit(_) => 8,
            Self::Cancel => 9,
            Self::Packed(_) => 10,
        }
    }
}

/// Smallest and largest payload of a kind; none = no such kind.
fn lengths(kind: u8) -> Option<(usize, usize)> {
    match kind {
        1..=4 => Some((1, MAX_JSON_BYTES)),
        5 | 8 => Some((8, 8)),
        6 => Some((1, MAX_DATA_BYTES)),
        7 => Some((32, 32)),
        9 => Some((0, 0)),
        10 => Some((PLAIN_BYTES_BYTES + 1, MAX_DATA_BYTES)),
        _ => None,
    }
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the next frame; none = the channel ended between two frames.
///
/// # Errors
/// `InvalidData`: not a frame (kind, or a length that its kind can't have). `UnexpectedEof`: cut inside a frame.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut header = [0_u8; HEADER_BYTES];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let [l0, l1, l2, l3, kind, id @ ..] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let id = u64::from_be_bytes(id);
    let (least, most) = lengths(kind).ok_or_else(|| bad(format!("frame of unknown kind {kind}")))?;
    if !(least..=most).contains(&length) {
        return Err(bad(format!("frame of kind {kind} with {length} bytes")));
    }
    // grows with what arrives: a length alone reserves nothing
    let mut payload = Vec::with_capacity(length.min(MAX_DATA_BYTES));
    (&mut *from).take(length as u64).read_to_end(&mut payload).await?;
    if payload.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decode(kind, payload).map(|body| Some(Frame { id, body }))
}

fn decode(kind: u8, payload: Vec<u8>) -> io::Result<Body> {
    let number = |bytes: &[u8]| {
        <[u8; 8]>::try_from(bytes).map(u64::from_be_bytes).map_err(|_| bad("a number of 8 bytes".into()))
    };
    Ok(match kind {
        1 => Body::Request(payload),
        2 => Body::Reply(payload),
        3 => Body::Put(payload),
        4 => Body::Get(payload),
        5 => Body::Size(number(&payload)?),
        6 => Body::Data(payload),
        7 => Body::End(payload.try_into().map_err(|_| bad("a hash of 32 bytes".into()))?),
        8 => Body::Credit(number(&payload)?),
        9 => Body::Cancel,
        10 => Body::Packed(packed(&payload)?),
        other => return Err(bad(format!("frame of unknown kind {other}"))),
    })
}

fn packed(payload: &[u8]) -> io::Result<Packed> {
    let (plain_bytes, zstd) =
        payload.split_first_chunk().ok_or_else(|| bad("a packed piece without a length".into()))?;
    let plain_bytes = u32::from_be_bytes(*plain_bytes);
    if plain_bytes == 0 || plain_bytes as usize > MAX_DATA_BYTES {
        return Err(bad(format!("a packed piece of {plain_bytes} bytes")));
    }
    Ok(Packed { plain_bytes, zstd: zstd.to_vec() })
}

/// Writes a frame, without flushing.
///
/// # Errors
/// `InvalidInput`: longer than its kind may be; nothing was written then.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (number, joined);
    let payload: &[u8] = match &frame.body {
        Body::Request(bytes) | Body::Reply(bytes) | Body::Put(bytes) | Body::Get(bytes) => bytes,
        Body::Data(bytes) => bytes,
        Body::Size(n) | Body::Credit(n) => {
            number = n.to_be_bytes();
            &number
        }
        Body::End(sha256) => sha256,
        Body::Packed(packed) => {
            joined = [&packed.plain_bytes.to_be_bytes()[..], &packed.zstd].concat();
            &joined
        }
        Body::Cancel => &[],
    };
    let kind = frame.body.kind();
    let fits = lengths(kind).is_some_and(|(_, most)| payload.len() <= most);
    let (true, Ok(length)) = (fits, u32::try_from(payload.len())) else {
        let what = format!("{} bytes are too many for a frame of kind {kind}", payload.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&length.to_be_bytes());
    header.push(kind);
    header.extend_from_slice(&frame.id.to_be_bytes());
    to.write_all(&header).await?;
    to.write_all(payload).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn body() -> impl Strategy<Value = Body> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..3000);
        prop_oneof![
            bytes().prop_map(Body::Request),
            bytes().prop_map(Body::Reply),
            bytes().prop_map(Body::Put),
            bytes().prop_map(Body::Get),
            any::<u64>().prop_map(Body::Size),
            bytes().prop_map(Body::Data),
            (1..=65_536_u32, bytes())
                .prop_map(|(plain_bytes, zstd)| Body::Packed(Packed { plain_bytes, zstd })),
            any::<[u8; 32]>().prop_map(Body::End),
            any::<u64>().prop_map(Body::Credit),
            Just(Body::Cancel),
        ]
    }

    proptest! {
        // What one end writes the other reads, frame for frame, and a channel cut anywhere is either a clean end
        // between two frames or an error: never a shorter frame taken for a whole one.
        #[test]
        fn frames_survive_the_way_and_a_cut_is_seen(
            frames in proptest::collection::vec((any::<u64>(), body()), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let frames: Vec<_> = frames.into_iter().map(|(id, body)| Frame { id, body }).collect();
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for frame in &frames {
                run(write(&mut bytes, frame)).unwrap();
                ends.push(bytes.len());
            }
            let mut all = bytes.as_slice();
            for frame in &frames {
                prop_assert_eq!(run(read(&mut all)).unwrap(), Some(frame.clone()));
            }
            prop_assert_eq!(run(read(&mut all)).unwrap(), None);

            let cut = cut.index(bytes.len() + 1);
            let mut short = &bytes[..cut];
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            for frame in &frames[..whole] {
                prop_assert_eq!(run(read(&mut short)).unwrap(), Some(frame.clone()));
            }
            let last = run(read(&mut short));
            prop_assert_eq!(last.is_ok(), ends.contains(&cut));
        }

        // A hostile peer sends anything: an error or a frame within the bounds, never a panic, and never more memory
        // than was sent.
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut left = bytes.as_slice();
            while let Ok(Some(frame)) = run(read(&mut left)) {
                if let Body::Data(data) = &frame.body {
                    prop_assert!(!data.is_empty() && data.len() <= bytes.len());
                }
            }
        }
    }

    // Lengths that lie: too long for the kind, unknown kinds, a number of 9 bytes, and a promised 60 MiB of which
    // nothing comes.
    #[test]
    fn lying_lengths_are_refused() {
        let frame = |length: u32, kind: u8, rest: &[u8]| {
            [&length.to_be_bytes()[..], &[kind], &7_u64.to_be_bytes(), rest].concat()
        };
        let cases = [
            (frame(u32::MAX, 1, &[]), io::ErrorKind::InvalidData),
            (frame((64 << 10) + 1, 6, &[]), io::ErrorKind::InvalidData),
            (frame(0, 6, &[]), io::ErrorKind::InvalidData),
            (frame(9, 5, &[0; 9]), io::ErrorKind::InvalidData),
            (frame(31, 7, &[0; 31]), io::ErrorKind::InvalidData),
            (frame(1, 9, &[0]), io::ErrorKind::InvalidData),
            (frame(1, 0, &[0]), io::ErrorKind::InvalidData),
            (frame(1, 10, &[0]), io::ErrorKind::InvalidData),
            (frame(60 << 20, 2, b"{"), io::ErrorKind::UnexpectedEof),
        ];
        for (bytes, kind) in cases {
            assert_eq!(run(read(&mut bytes.as_slice())).unwrap_err().kind(), kind, "{bytes:?}");
        }
        let long = Frame { id: 1, body: Body::Data(vec![0; MAX_DATA_BYTES + 1]) };
        assert_eq!(run(write(&mut Vec::new(), &long)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
