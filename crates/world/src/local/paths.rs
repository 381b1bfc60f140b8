//! The root folder a host's paths lie under, and the one place where a host path becomes a path of this machine.

use crate::fault::{Fault, Outcome};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use rekindle_model::HostPath;

/// The folder that stands for `/` of the host.
#[derive(Clone, Debug)]
pub(crate) struct Root(Utf8PathBuf);

impl Root {
    /// `/` for this machine itself, another folder for a file system mounted there.
    pub(crate) fn new(root: impl Into<Utf8PathBuf>) -> Self {
        Self(root.into())
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.0
    }

    /// Whether this is the running machine: only then do its processes, units and containers answer.
    pub(crate) fn is_running_machine(&self) -> bool {
        self.0 == "/"
    }

    /// Where a path of the host lies on this machine.
    ///
    /// # Errors
    /// Refused when it is not absolute or climbs with `..`: plans and manifests are input.
    pub(crate) fn resolve(&self, path: &HostPath) -> Outcome<Utf8PathBuf> {
        let mut parts = path.components();
        if parts.next() != Some(Utf8Component::RootDir) {
            return Err(Fault::refused(format!("{path}: not an absolute path")));
        }
        let mut resolved = self.0.clone();
        for part in parts {
            match part {
                Utf8Component::Normal(name) => resolved.push(name),
                Utf8Component::CurDir => {}
                _ => return Err(Fault::refused(format!("{path}: `..` is not followed"))),
            }
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Paths come from manifests and plan files: one that climbs out of the root must not reach the machine's own files.
    #[test]
    fn a_path_never_leaves_the_root() {
        let root = Root::new("/mnt/disk");
        let resolve = |p: &str| root.resolve(&HostPath::from(p));
        assert_eq!(resolve("/etc/kubernetes").unwrap(), "/mnt/disk/etc/kubernetes");
        assert!(resolve("/etc/../../etc/shadow").is_err());
        assert!(resolve("etc").is_err());
        assert_eq!(Root::new("/").resolve(&HostPath::from("/a/b")).unwrap(), "/a/b");
    }
}
