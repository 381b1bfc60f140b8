//! The bridge that all test hosts hang on, with addresses of its own. Nothing is routed beyond this machine.

use crate::cmd;
use anyhow::Result;
use std::net::Ipv4Addr;

/// The bridge's name.
pub const BRIDGE: &str = "rekindle0";

/// The machine's own address on the bridge; hosts are in the same /24.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Makes the bridge unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn up() -> Result<()> {
    if cmd::sh("ip", ["link", "show", BRIDGE]).is_err() {
        cmd::sh("ip", ["link", "add", "name", BRIDGE, "type", "bridge"])?;
    }
    cmd::sh("ip", ["address", "replace", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
    cmd::sh("ip", ["link", "set", BRIDGE, "up"])?;
    Ok(())
}

/// Removes the bridge, if it is there.
///
/// # Errors
/// When it cannot be removed.
pub fn down() -> Result<()> {
    if cmd::sh("ip", ["link", "show", BRIDGE]).is_ok() {
        cmd::sh("ip", ["link", "del", BRIDGE])?;
    }
    Ok(())
}
