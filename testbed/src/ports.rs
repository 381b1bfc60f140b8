//! Ports on loopback for servers of tests.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port that is given out, and how many there are: all below the range from which the kernel takes ports for
/// connections, so that a server that is started again finds its port free.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port on loopback that nobody listens on, another one each time in this process.
#[must_use]
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // spread by process, so that two test binaries do not meet
    let spread = u16::try_from(std::process::id() % 200).unwrap_or(0) * 100;
    loop {
        let port = FIRST + spread.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The URL of such a port.
#[must_use]
pub fn free_url() -> String {
    format!("http://127.0.0.1:{}", free())
}
