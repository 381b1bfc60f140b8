//! `cargo xtask testbed`: build the components, make clusters, and let a person play with one.

use anyhow::{Context, Result};
use clap::Subcommand;
use std::os::unix::process::CommandExt as _;
use testbed::{Kind, Set, base, cache, cmd, components, set};

/// Arguments of `cargo xtask testbed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build what is not in the cache yet: components from their Go modules and, as root, the base of the hosts
    Build {
        /// Only these components (etcd-3.5 to etcd-3.7, kubernetes, containerd, age, versitygw); default: everything
        names: Vec<String>,
    },
    /// Make and save clusters that are not saved yet
    Make {
        /// kubeadm1, kubeadm3 or systemd1; default: all
        sets: Vec<Kind>,
    },
    /// Load a fresh copy of a cluster and leave it running
    Up {
        /// kubeadm1, kubeadm3 or systemd1
        set: Kind,
    },
    /// Create objects in the running cluster: ConfigMaps and Secrets of about 1 KB
    Fill {
        /// How many
        #[arg(default_value_t = 500)]
        objects: usize,
    },
    /// End the running cluster and remove what is left of it, and of clusters of tests that were killed
    Down,
    /// Say what is built, saved and running
    Status,
    /// Run a command on a host of the running cluster
    Exec {
        /// The host's name: cp1, w1, lb
        host: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Runs the action.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Build { names } => build(&names),
        Action::Make { sets } if sets.is_empty() => Kind::ALL.into_iter().try_for_each(set::make),
        Action::Make { sets } => sets.into_iter().try_for_each(set::make),
        Action::Up { set } => up(set),
        Action::Fill { objects } => running()?.fill(objects),
        Action::Down => down(),
        Action::Status => status(),
        Action::Exec { host, command } => exec(&host, &command),
    }
}

fn build(names: &[String]) -> Result<()> {
    if names.is_empty() {
        testbed::needs::hosts()?;
    }
    components::build(names)?;
    if names.is_empty() {
        base::build()?;
    }
    status()
}

fn up(kind: Kind) -> Result<()> {
    Set::load(kind)?.stay();
    status()
}

fn down() -> Result<()> {
    let _lock = cache::Lock::lane()?;
    set::clean()?;
    if std::env::var_os(cache::LANE_ENV).is_some() {
        return Ok(());
    }
    // a lane is a process's: each is cleaned by one of its own
    for lane in cache::other_lanes()? {
        let own = std::env::current_exe().context("this program has no path")?;
        let mut command = cmd::command(&own.to_string_lossy(), ["testbed", "down"]);
        cmd::run(command.env(cache::LANE_ENV, lane.to_string()))?;
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // this command's answer
fn status() -> Result<()> {
    for (name, dir, built) in components::list()? {
        println!("{name:<20} {:<10} {dir}", if built { "built" } else { "missing" });
    }
    let base = base::built().is_ok();
    println!("{:<20} {}", "base of the hosts", if base { "built" } else { "missing" });
    for kind in Kind::ALL {
        let saved = set::is_made(kind)?;
        println!("{:<20} {}", kind.name(), if saved { "saved" } else { "not made" });
    }
    let Some(set) = Set::running()? else { return Ok(()) };
    println!("\n{} runs:", set.kind);
    for host in set.hosts() {
        println!("  {:<6} {:<12} {}", host.name, host.ip, if host.is_running() { "up" } else { "off" });
    }
    println!("  ssh -F {} HOST", set.ssh_config());
    println!("  export KUBECONFIG={}", set.admin_kubeconfig());
    Ok(())
}

fn running() -> Result<Set> {
    Set::running()?.context("no cluster runs: `cargo xtask testbed up SET` first")
}

fn exec(host: &str, command: &[String]) -> Result<()> {
    let args: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut command = running()?.host(host)?.exec_command(&args)?;
    command.stdin(std::process::Stdio::inherit());
    Err(command.exec()).context("cannot start nsenter")
}
