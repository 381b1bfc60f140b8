//! Where the sandbox's etcd and kube-apiserver come from: the folder that is named, else PATH, else the very programs that run
//! on this host, also in containers: theirs is the version that a recovery would boot.

use crate::connect;
use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use std::os::unix::fs::PermissionsExt;

/// What can be booted.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) etcd: Option<Utf8PathBuf>,
    pub(super) api_server: Option<Utf8PathBuf>,
}

/// Finds them; programs of running processes are copied into `folder`.
pub(super) async fn find(bin_dir: Option<&Utf8Path>, folder: &Utf8Path) -> Result<Programs, Failure> {
    Ok(Programs {
        etcd: one("etcd", bin_dir, folder).await?,
        api_server: one("kube-apiserver", bin_dir, folder).await?,
    })
}

async fn one(
    name: &str,
    bin_dir: Option<&Utf8Path>,
    folder: &Utf8Path,
) -> Result<Option<Utf8PathBuf>, Failure> {
    if let Some(dir) = bin_dir {
        let file = dir.canonicalize_utf8().doing(|| format!("cannot read {dir}"))?.join(name);
        return Ok(is_program(&file).then_some(file));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Utf8Path::new(dir).join(name));
    if let Some(file) = found.into_iter().find(|file| is_program(file)) {
        return Ok(Some(file));
    }
    let running = connect::local("/".into()).processes(&[name]).await;
    for process in running.unwrap_or_default() {
        let copy = folder.join(name);
        // a process that has just ended, or is another user's, is none to copy from
        if std::fs::copy(format!("/proc/{}/exe", process.pid), &copy).is_ok() {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&copy, mode).doing(|| format!("cannot make {copy} executable"))?;
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

fn is_program(file: &Utf8Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
