//! One file over the channel, the same code at both ends: whoever sends keeps within the window that the receiver's
//! credit opens; whoever receives writes aside, and names the file only when its SHA-256 is the sender's. Pieces are
//! compressed one by one: a store shrinks to a third, and most lines are slower than that costs.

use super::frame::{Body, MAX_DATA_BYTES, Packed, WINDOW_BYTES};
use super::wire::{Event, Outbox, broken, parse_reply, send};
use crate::Progress;
use crate::aside::AsideFile;
use crate::fault::{Fault, Outcome};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read as _;
use tokio::sync::mpsc;

/// zstd's fastest ordinary level: keeps up with a line of 3 Gbit/s.
const LEVEL: i32 = 1;
/// Pieces that may wait between channel and disk.
const PIECES: usize = 8;

/// Sends a file: its size, its pieces, its SHA-256. `progress` hears what the receiver has taken.
pub(super) async fn send_file(
    path: Utf8PathBuf,
    id: u64,
    outbox: &Outbox,
    events: &mut mpsc::Receiver<Event>,
    progress: &Progress,
) -> Outcome<()> {
    let (size, mut pieces) = open(path.clone()).await?;
    send(outbox, id, Body::Size(size)).await?;
    let (mut sent, mut taken) = (0_u64, 0_u64);
    let mut sum = None;
    progress(0, size);
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::End(sha256) => sum = Some(sha256),
            piece => {
                let length = piece.plain_bytes();
                while sent.saturating_sub(taken).saturating_add(length) > WINDOW_BYTES {
                    taken = taken.saturating_add(credit(events.recv().await)?);
                    progress(taken.min(size), size);
                }
                send(outbox, id, piece.into_body()).await?;
                sent = sent.saturating_add(length);
            }
        }
        while let Ok(event) = events.try_recv() {
            taken = taken.saturating_add(credit(Some(event))?);
        }
    }
    let sum = sum.ok_or_else(|| Fault::failed(format!("read {path}: broke off")))?;
    send(outbox, id, Body::End(sum)).await
}

/// What may come to a sender in the middle: credit; anything else ends the file.
fn credit(event: Option<Event>) -> Outcome<u64> {
    match event {
        Some(Event::Credit(bytes)) => Ok(bytes),
        Some(Event::Reply(json)) => match parse_reply(&json) {
            Err(fault) => Err(fault),
            Ok(_) => Err(Fault::failed("an answer before the end of the file")),
        },
        Some(Event::Cancel) => Err(Fault::failed("cancelled by the other end")),
        Some(other) => Err(Fault::failed(format!("out of turn: {}", name(&other)))),
        None => Err(broken()),
    }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Reply(_) => "reply",
        Event::Size(_) => "size",
        Event::Data(_) => "data",
        Event::Packed(_) => "packed",
        Event::End(_) => "end",
        Event::Credit(_) => "credit",
        Event::Cancel => "cancel",
    }
}

enum Piece {
    Data(Vec<u8>),
    Packed(Packed),
    End([u8; 32]),
}

impl Piece {
    /// Bytes of the file that it stands for.
    fn plain_bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Packed(packed) => u64::from(packed.plain_bytes),
            Self::End(_) => 0,
        }
    }

    fn into_body(self) -> Body {
        match self {
            Self::Data(data) => Body::Data(data),
            Self::Packed(packed) => Body::Packed(packed),
            Self::End(sha256) => Body::End(sha256),
        }
    }

    /// A piece of a file, packed where that makes it an eighth shorter at least.
    fn pack(data: Vec<u8>, zstd: &mut zstd::bulk::Compressor<'_>) -> Self {
        match (zstd.compress(&data), u32::try_from(data.len())) {
            (Ok(packed), Ok(plain_bytes)) if packed.len() < data.len() - data.len() / 8 => {
                Self::Packed(Packed { plain_bytes, zstd: packed })
            }
            _ => Self::Data(data),
        }
    }
}

/// The piece of a file that was packed; one that is not as long as it says is refused.
fn unpack(packed: &Packed, zstd: &mut zstd::bulk::Decompressor<'_>) -> Result<Vec<u8>, String> {
    let length = packed.plain_bytes as usize;
    let data = zstd.decompress(&packed.zstd, length).map_err(|e| format!("a packed piece: {e}"))?;
    if data.len() == length {
        Ok(data)
    } else {
        Err(format!("a packed piece of {length} bytes has {}", data.len()))
    }
}

/// Opens a regular file and reads it on a thread of its own.
async fn open(path: Utf8PathBuf) -> Outcome<(u64, mpsc::Receiver<Outcome<Piece>>)> {
    let (pieces, received) = mpsc::channel(PIECES);
    let (told, size) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let opened = open_regular(&path);
        let _ = told.send(opened.as_ref().map(|(_, size)| *size).map_err(Clone::clone));
        if let Ok((file, _)) = opened {
            read_pieces(&path, file, &pieces);
        }
    });
    let size = size.await.map_err(|_| Fault::failed("the reading thread died"))??;
    Ok((size, received))
}

fn open_regular(path: &Utf8Path) -> Outcome<(File, u64)> {
    // looked at before it is opened: opening a named pipe would wait for ever
    let found = std::fs::metadata(path).map_err(|e| Fault::io(format_args!("open {path}"), &e))?;
    if !found.is_file() {
        return Err(Fault::refused(format!("{path} is not a regular file")));
    }
    let file = File::open(path).map_err(|e| Fault::io(format_args!("open {path}"), &e))?;
    Ok((file, found.len()))
}

fn read_pieces(path: &Utf8Path, mut file: File, pieces: &mpsc::Sender<Outcome<Piece>>) {
    let mut sum = Sha256::new();
    let failed = |e| Fault::io(format_args!("compress {path}"), &e);
    let mut zstd = match zstd::bulk::Compressor::new(LEVEL).map_err(failed) {
        Ok(zstd) => zstd,
        Err(fault) => return drop(pieces.blocking_send(Err(fault))),
    };
    loop {
        let mut data = vec![0; MAX_DATA_BYTES];
        let piece = match file.read(&mut data) {
            Ok(0) => Ok(Piece::End(sum.clone().finalize().into())),
            Ok(length) => {
                data.truncate(length);
                sum.update(&data);
                Ok(Piece::pack(data, &mut zstd))
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => Err(Fault::io(format_args!("read {path}"), &e)),
        };
        let last = matches!(piece, Ok(Piece::End(_)) | Err(_));
        if pieces.blocking_send(piece).is_err() || last {
            return;
        }
    }
}

/// Receives a file into `path`. Nothing stands under that name unless all of it came and its SHA-256 is right.
pub(super) async fn receive_file(
    path: Utf8PathBuf,
    id: u64,
    outbox: &Outbox,
    events: &mut mpsc::Receiver<Event>,
    progress: &Progress,
) -> Outcome<()> {
    let size = match events.recv().await {
        Some(Event::Size(size)) => size,
        other => return Err(credit(other).err().unwrap_or_else(|| Fault::failed("out of turn: credit"))),
    };
    progress(0, size);
    let (pieces, received) = mpsc::channel(PIECES);
    let writer = tokio::task::spawn_blocking(move || write_pieces(&path, received));
    let mut taken = 0_u64;
    let pumped = loop {
        let piece = match events.recv().await {
            Some(Event::Data(data)) => Piece::Data(data),
            Some(Event::Packed(packed)) => Piece::Packed(packed),
            Some(Event::End(sha256)) if taken == size => Piece::End(sha256),
            Some(Event::End(_)) => break Err(Fault::failed(format!("{taken} bytes came instead of {size}"))),
            other => break Err(credit(other).err().unwrap_or_else(|| Fault::failed("out of turn: credit"))),
        };
        let (length, last) = (piece.plain_bytes(), matches!(piece, Piece::End(_)));
        taken = taken.saturating_add(length);
        if taken > size {
            break Err(Fault::failed(format!("more bytes came than the {size} told")));
        }
        if pieces.send(piece).await.is_err() || last {
            break Ok(()); // the writer tells why
        }
        if let Err(fault) = send(outbox, id, Body::Credit(length)).await {
            break Err(fault);
        }
        progress(taken, size);
    };
    drop(pieces);
    let written = writer.await.map_err(|e| Fault::failed(format!("the writing thread died: {e}")))?;
    pumped.and(written)
}

fn write_pieces(path: &Utf8Path, mut pieces: mpsc::Receiver<Piece>) -> Outcome<()> {
    let mut file = AsideFile::create(path)?;
    let mut sum = Sha256::new();
    let failed = |e| Fault::io(format_args!("decompress {path}"), &e);
    let mut zstd = zstd::bulk::Decompressor::new().map_err(failed)?;
    while let Some(piece) = pieces.blocking_recv() {
        let data = match piece {
            Piece::Data(data) => data,
            Piece::Packed(packed) => {
                unpack(&packed, &mut zstd).map_err(|what| Fault::failed(format!("{path}: {what}")))?
            }
            Piece::End(told) if sum.clone().finalize().as_slice() == told => return file.finish(),
            Piece::End(_) => return Err(Fault::failed(format!("{path}: its SHA-256 is not the sender's"))),
        };
        sum.update(&data);
        file.write_all(&data)?;
    }
    Err(Fault::failed(format!("{path}: the file broke off")))
}
