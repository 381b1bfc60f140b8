//! Containers through the Container Runtime Interface (CRI v1), the gRPC service kubelet itself uses, over the
//! runtime's Unix socket. Works with kubelet and API server down.

use super::files;
use super::paths::Root;
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use camino::{Utf8Path, Utf8PathBuf};
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    Container, ContainerFilter, ContainerState, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, RemovePodSandboxRequest, StopContainerRequest, StopPodSandboxRequest,
};
use rekindle_model::HostPath;
use rekindle_model::host::ContainerFacts;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Longest wait for an answer that changes nothing.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a pod to stop; its processes are killed, but a loaded machine takes its time.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Most containers whose status is asked for.
const MAX_CONTAINERS: usize = 100;
/// The namespace of static pods made by kubeadm. A user's pod that calls a container `etcd` lives elsewhere.
const NAMESPACE: &str = "kube-system";
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const POD_LABEL: &str = "io.kubernetes.pod.name";

/// Where kubelet is told its runtime's socket: its configuration, kubeadm's per-node patch of it, its flags.
const KUBELET_FILES: [&str; 3] = [
    "/var/lib/kubelet/instance-config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/kubelet/config.yaml",
];
/// Sockets of the common runtimes.
const SOCKETS: [&str; 3] =
    ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"];

type Client = RuntimeServiceClient<Channel>;

/// The runtime's socket: the one kubelet is configured with, else the first well-known one there is.
fn socket(root: &Root) -> Outcome<Utf8PathBuf> {
    for file in KUBELET_FILES {
        let Ok(path) = root.resolve(&HostPath::from(file)) else { continue };
        let Ok(text) = files::read(&path, 1 << 20, false) else { continue };
        if let Some(socket) = configured(&String::from_utf8_lossy(&text)) {
            return Ok(socket);
        }
    }
    let known = SOCKETS.iter().map(Utf8Path::new).find(|s| s.exists());
    known.map(Utf8Path::to_owned).ok_or_else(|| {
        Fault::not_found(format!(
            "no container runtime: kubelet names none, and none of {} is there",
            SOCKETS.join(", ")
        ))
    })
}

/// The socket in `containerRuntimeEndpoint: unix:///run/x.sock` or `--container-runtime-endpoint=unix:///run/x.sock`.
fn configured(text: &str) -> Option<Utf8PathBuf> {
    let line = text.lines().find(|l| {
        l.trim_start().starts_with("containerRuntimeEndpoint:") || l.contains("--container-runtime-endpoint")
    })?;
    let after = line.split_once("endpoint").or_else(|| line.split_once("Endpoint"))?.1;
    let value = after.trim_start_matches(['=', ':', ' ', '"', '\'']);
    let value = value.strip_prefix("unix://").unwrap_or(value);
    let end = value.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(value.len());
    value.get(..end).filter(|path| path.starts_with('/')).map(Utf8PathBuf::from)
}

async fn connect(root: &Root) -> Outcome<Client> {
    let socket = socket(root)?;
    let refused = |e: &dyn std::error::Error| {
        Fault::from_error(
            HostErrorKind::Unavailable,
            format!("connect to the container runtime at {socket}"),
            e,
        )
    };
    // The address is not used: the connector below opens the socket whatever it says.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(ASK_LIMIT);
    let path = socket.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    Ok(Client::new(endpoint.connect_with_connector(connector).await.map_err(|e| refused(&e))?))
}

/// Waits for an answer, but not forever.
async fn bounded<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Outcome<Option<T>> {
    match tokio::time::timeout(limit, call).await {
        Err(_) => Err(Fault::unavailable(format!("the container runtime did not {what} in {limit:?}"))),
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => Ok(None),
        Ok(Err(status)) => {
            Err(Fault::failed(format!("the container runtime did not {what}: {}", status.message())))
        }
        Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
    }
}

async fn list(client: &mut Client, filter: ContainerFilter) -> Outcome<Vec<Container>> {
    let request = ListContainersRequest { filter: Some(filter) };
    let answer = bounded(ASK_LIMIT, "list its containers", client.list_containers(request)).await?;
    Ok(answer.map(|a| a.containers).unwrap_or_default())
}

/// Containers of `kube-system`, newest first.
pub(crate) async fn containers(root: &Root) -> Outcome<Vec<ContainerFacts>> {
    let mut client = connect(root).await?;
    let label_selector = [(NAMESPACE_LABEL.to_owned(), NAMESPACE.to_owned())].into();
    let mut found = list(&mut client, ContainerFilter { label_selector, ..Default::default() }).await?;
    found.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    found.truncate(MAX_CONTAINERS);
    let facts = join_all(found.into_iter().map(|c| facts(client.clone(), c))).await;
    facts.into_iter().filter_map(Result::transpose).collect()
}

/// A container with its status; none = removed meanwhile.
async fn facts(mut client: Client, container: Container) -> Outcome<Option<ContainerFacts>> {
    let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    let answer = bounded(ASK_LIMIT, "tell a container's status", client.container_status(request)).await?;
    let Some(status) = answer.and_then(|a| a.status) else { return Ok(None) };
    let meta = container.metadata.unwrap_or_default();
    let exited = status.state == ContainerState::ContainerExited as i32;
    Ok(Some(ContainerFacts {
        id: container.id,
        sandbox_id: container.pod_sandbox_id,
        name: meta.name,
        pod: container.labels.get(POD_LABEL).cloned().unwrap_or_default(),
        running: status.state == ContainerState::ContainerRunning as i32,
        attempt: meta.attempt,
        exit_code: exited.then_some(status.exit_code),
        reason: status.reason,
        started_ms: status.started_at / 1_000_000,
        finished_ms: status.finished_at / 1_000_000,
        log_path: HostPath::from(status.log_path),
    }))
}

/// Stops and removes every pod sandbox of every namespace, one after another; none left is success.
pub(crate) async fn remove_pods(root: &Root) -> Outcome<()> {
    let mut client = connect(root).await?;
    let request = ListPodSandboxRequest { filter: None };
    let answer = bounded(ASK_LIMIT, "list its pods", client.list_pod_sandbox(request)).await?;
    for sandbox in answer.map(|a| a.items).unwrap_or_default() {
        stop_pod(root, &sandbox.id).await?;
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id };
        bounded(STOP_LIMIT, "remove a pod sandbox", client.remove_pod_sandbox(request)).await?;
    }
    Ok(())
}

/// Kills the containers of a pod sandbox and stops the sandbox; gone already is success.
pub(crate) async fn stop_pod(root: &Root, sandbox_id: &str) -> Outcome<()> {
    let mut client = connect(root).await?;
    let filter = ContainerFilter { pod_sandbox_id: sandbox_id.into(), ..Default::default() };
    for container in list(&mut client, filter).await? {
        if container.state == ContainerState::ContainerRunning as i32 {
            // Without a grace period: StopPodSandbox alone is at once with containerd, but not with every runtime.
            let request = StopContainerRequest { container_id: container.id, timeout: 0 };
            bounded(STOP_LIMIT, "stop a container", client.stop_container(request)).await?;
        }
    }
    let request = StopPodSandboxRequest { pod_sandbox_id: sandbox_id.into() };
    bounded(STOP_LIMIT, "stop a pod sandbox", client.stop_pod_sandbox(request)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A host with two runtimes runs its pods on the one kubelet names, wherever it is named.
    #[test]
    fn the_socket_is_read_from_kubelets_files() {
        let cases = [
            ("containerRuntimeEndpoint: \"\"\n", None),
            (
                "apiVersion: x\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n",
                Some("/run/crio/crio.sock"),
            ),
            (
                "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/c.sock --pod-infra=x\"",
                Some("/run/c.sock"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(configured(text).as_ref().map(|p| p.as_str()), expected, "{text}");
        }
    }
}
