//! Filling a cluster fast with objects like those of real ones: through the API server, over a few connections
//! that stay open, by way of `kubectl proxy` on a Unix socket (so that no TLS is needed here).

use crate::plane::Plane;
use crate::{Set, cmd};
use anyhow::{Context, Result, bail};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Connections at a time.
const CONNECTIONS: usize = 8;

/// Objects per namespace.
const PER_NAMESPACE: usize = 250;

/// How large an answer may be: they are single objects or a Status.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

impl Set {
    /// Creates `objects` objects in namespaces `fill-0`, `fill-1`, ...: by turns a ConfigMap and a Secret of about
    /// 1 KB each, with content that follows from their number. Those that are there already stay.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn fill(&self, objects: usize) -> Result<()> {
        fill(self.kubectl_command(&[])?, &self.dir().join("proxy.sock"), objects, object)
    }
}

impl Plane {
    /// Creates `objects` objects of seven kinds in namespaces `fill-0`, `fill-1`, ...: ConfigMaps and Secrets of about
    /// 1 KB, ServiceAccounts, Roles, Services, Deployments and NetworkPolicies. Those that are there already stay.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn fill(&self, objects: usize) -> Result<()> {
        fill(self.kubectl_command()?, &self.dir().join("proxy.sock"), objects, mixed)
    }
}

/// Makes the namespaces, and the objects with these numbers.
fn fill(
    kubectl: Command,
    socket: &Utf8Path,
    objects: usize,
    make: fn(usize) -> (String, Value),
) -> Result<()> {
    let _proxy = Proxy::start(kubectl, socket)?;
    let namespace = |number| {
        let name = format!("fill-{number}");
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ("/api/v1/namespaces".to_owned(), body)
    };
    create(socket, objects.div_ceil(PER_NAMESPACE), namespace)?;
    create(socket, objects, make)
}

/// Makes the objects with these numbers through a proxy, over several connections; those that are there already stay.
pub(crate) fn create(
    socket: &Utf8Path,
    objects: usize,
    make: impl Fn(usize) -> (String, Value) + Sync,
) -> Result<()> {
    std::thread::scope(|scope| {
        let part = |first: usize| {
            let make = &make;
            move || -> Result<()> {
                let mut connection = Connection::open(socket)?;
                (first..objects).step_by(CONNECTIONS).try_for_each(|number| {
                    let (path, body) = make(number);
                    connection.create(&path, &body)
                })
            }
        };
        let parts: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(part(first))).collect();
        parts.into_iter().try_for_each(|part| match part.join() {
            Ok(result) => result,
            Err(_) => bail!("a filling thread panicked"),
        })
    })
}

/// Collection path and body of the object with this number, of more kinds.
fn mixed(number: usize) -> (String, Value) {
    let namespace = format!("fill-{}", number / PER_NAMESPACE);
    let (api, plural, kind, content) = match number % 7 {
        0 | 1 => return object(number),
        2 => ("api/v1", "serviceaccounts", "ServiceAccount", json!({"automountServiceAccountToken": false})),
        3 => (
            "apis/rbac.authorization.k8s.io/v1",
            "roles",
            "Role",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        4 => {
            ("api/v1", "services", "Service", json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}))
        }
        5 => (
            "apis/apps/v1",
            "deployments",
            "Deployment",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "TEXT", "value": text(number)}]}]}}}}),
        ),
        _ => (
            "apis/networking.k8s.io/v1",
            "networkpolicies",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"]}}),
        ),
    };
    let mut body = json!({
        "apiVersion": api.split_once('/').map_or(api, |(_, version)| version), "kind": kind,
        "metadata": {"name": format!("object-{number}"), "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "testbed", "number": number.to_string()}},
    });
    if let (Some(body), Value::Object(content)) = (body.as_object_mut(), content) {
        body.extend(content);
    }
    (format!("/{api}/namespaces/{namespace}/{plural}"), body)
}

/// Collection path and body of the object with this number.
fn object(number: usize) -> (String, Value) {
    let namespace = format!("fill-{}", number / PER_NAMESPACE);
    let (kind, plural, field) = if number.is_multiple_of(2) {
        ("ConfigMap", "configmaps", "data")
    } else {
        ("Secret", "secrets", "stringData")
    };
    let mut body = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": format!("object-{number}"), "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "testbed", "number": number.to_string()}},
    });
    if let Some(map) = body.as_object_mut() {
        map.insert(field.to_owned(), json!({"number": number.to_string(), "text": text(number)}));
    }
    (format!("/api/v1/namespaces/{namespace}/{plural}"), body)
}

/// About 1 KB that follows from the number and does not compress to nothing (splitmix64).
fn text(number: usize) -> String {
    let mut state = number as u64;
    let mut text = String::new();
    while text.len() < 960 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let _ = write!(text, "{:016x}", word ^ (word >> 31));
    }
    text
}

/// `kubectl proxy`, ended when dropped.
pub(crate) struct Proxy(Child);

impl Proxy {
    pub(crate) fn start(mut command: Command, socket: &Utf8Path) -> Result<Self> {
        let _ = std::fs::remove_file(socket); // of a fill that was killed
        command.args(["proxy", "--reject-methods=^$", "--unix-socket", socket.as_str()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = Self(command.spawn().context("cannot start kubectl proxy")?);
        cmd::wait_for("kubectl proxy", Duration::from_secs(20), || Ok(Some(UnixStream::connect(socket)?)))?;
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One HTTP/1.1 connection that stays open.
struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    fn open(socket: &Utf8Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {socket}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Creates one object; "already exists" is fine.
    fn create(&mut self, path: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes()).with_context(|| format!("POST {path}"))?;
        let (status, answer) = self.answer().with_context(|| format!("answer to POST {path}"))?;
        match status {
            200..=299 | 409 => Ok(()),
            _ => bail!("POST {path}: status {status}: {answer}"),
        }
    }

    /// Reads one answer: its status and its body, by length or in chunks.
    fn answer(&mut self) -> Result<(u16, String)> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no HTTP status")?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let mut body = Vec::new();
        if !chunked {
            self.take(length, &mut body)?;
        }
        while chunked {
            let size = u64::from_str_radix(self.line()?.trim(), 16).context("bad chunk size")?;
            self.take(size, &mut body)?;
            self.line()?;
            chunked = size > 0;
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.reader.by_ref().take(64 << 10).read_line(&mut line)?;
        anyhow::ensure!(line.ends_with('\n'), "the connection ended");
        Ok(line.trim_end().to_owned())
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> Result<()> {
        anyhow::ensure!(length <= MAX_ANSWER_BYTES, "an answer of {length} bytes");
        let read = self.reader.by_ref().take(length).read_to_end(into)?;
        anyhow::ensure!(read as u64 == length, "the connection ended");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A test that compares what was filled with what came back needs the same objects every time.
    #[test]
    fn objects_follow_from_their_number() {
        assert_eq!(object(7), object(7));
        assert_ne!(object(7).1, object(9).1);
        assert!(object(251).0.starts_with("/api/v1/namespaces/fill-1/secrets"));
        assert_eq!(text(1).len(), 960);
    }
}
