//! The far end of a channel for the tests of `ssh`: what `rekindle serve` does, without the rest of the program.

use rekindle_world::local::LocalHost;
use rekindle_world::ssh::serve;
use std::sync::Arc;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let host = Arc::new(LocalHost::new(rekindle_model::HostId::local(), "/"));
    serve(host, tokio::io::stdin(), tokio::io::stdout()).await
}
