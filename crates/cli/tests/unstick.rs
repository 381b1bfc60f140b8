//! What will not go away, made for real on a control plane and let go: each kind by its own story.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "common/cluster.rs"]
#[allow(dead_code)] // each test file uses its part
mod cluster;

use cluster::{Site, workload};
use rekindle_world::cluster::{Method, Sent};
use serde_json::{Value, json};
use std::process::Command;
use testbed::components::etcd_line;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

fn crd(plural: &str, kind: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
        "versions": [version("v2", true), version("v1", false)]}})
}

fn make_crd(site: &Site, plural: &str, kind: &str) {
    site.make(CRDS, &crd(plural, kind));
    let served = format!("/apis/example.com/v2/{plural}");
    // a type that is just made is "(re)initializing" for a moment
    let asked = || site.runtime.block_on(site.cluster.get(&served));
    site.until("the type is served", || asked().is_ok_and(|list| list.is_some()));
}

fn namespace(site: &Site, name: &str) {
    site.make(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
    );
}

fn widget(site: &Site, namespace: &str, plural: &str, kind: &str, manager: &str) {
    let object = json!({"apiVersion": "example.com/v2", "kind": kind, "metadata": {"name": "one",
        "finalizers": ["example.com/cleanup"]}, "spec": {"size": 3}});
    site.make(
        &format!("/apis/example.com/v2/namespaces/{namespace}/{plural}?fieldManager={manager}"),
        &object,
    );
}

/// Whether `unstick` lists an object of that code and name.
fn is_listed(site: &Site, code: &str, name: &str) -> bool {
    let found = site.json(&["unstick"]);
    let stuck = found["stuck"].as_array().unwrap();
    stuck.iter().any(|one| one["finding"]["code"] == code && one["object"]["name"] == name)
}

/// Keys of etcd that have this text in them.
fn keys(site: &Site, part: &str) -> Vec<String> {
    let etcd = etcd_line("3.6").unwrap();
    let listed = Command::new(etcd.etcdctl)
        .args(["--endpoints", &site.plane.etcd_url, "get", "/registry/", "--prefix", "--keys-only"])
        .output()
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().filter(|key| key.contains(part)).map(str::to_owned).collect()
}

// A namespace is held by an object whose controller is gone. It is refused with who holds it and what that protects; with
// consent to the finalizer's removal it goes, and etcd holds no key of it. `undo` brings back namespace and object, alive
// and with the finalizer.
fn namespace_held_by_a_finalizer(site: &Site) {
    namespace(site, "shop");
    widget(site, "shop", "widgets", "Widget", "kubectl-create");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    site.make("/api/v1/namespaces/shop/secrets", &secret);
    site.delete("/api/v1/namespaces/shop");
    site.until("it is listed", || is_listed(site, "RK-A06", "shop"));
    let refused = site.ends(5, &["unstick", "namespace", "shop", "--yes"]);
    for part in ["Widget shop/one", "example.com/cleanup", "left behind", "--remove-finalizers"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let widget = "/apis/example.com/v2/namespaces/shop/widgets/one";
    assert!(site.get(widget).is_some(), "nothing was touched");
    let done = site.ends(0, &["unstick", "namespace", "shop", "--remove-finalizers", "--yes"]);
    assert!(done.contains("nothing is left in namespace shop"), "{done}");
    assert!(site.get("/api/v1/namespaces/shop").is_none());
    assert_eq!(keys(site, "/shop"), Vec::<String>::new());
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    let back = site.get(widget).unwrap();
    assert_eq!(back["metadata"]["finalizers"], json!(["example.com/cleanup"]));
    assert_eq!(back["spec"]["size"], 3);
    assert!(back["metadata"].get("deletionTimestamp").is_none(), "{back}");
    site.patch(widget, &json!({"metadata": {"finalizers": null}}));
}

// The controller that handles the finalizer is only scaled to none: it is started again and cleans up itself; no
// finalizer is taken off by force, though that was permitted.
fn namespace_whose_controller_is_scaled_down(site: &Site) {
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    site.make(deployments, &workload("Deployment", "widget-operator", 0, &json!([])));
    namespace(site, "farm");
    widget(site, "farm", "widgets", "Widget", "widget-operator");
    site.delete("/api/v1/namespaces/farm");
    site.until("it is listed", || is_listed(site, "RK-A06", "farm"));
    // the operator: as soon as it is wanted, it does its work
    let cluster = site.cluster.clone();
    let operator = site.runtime.spawn(async move {
        let path = format!("{deployments}/widget-operator");
        loop {
            let scale = cluster.get(&path).await.unwrap().unwrap();
            if scale.pointer("/spec/replicas") == Some(&json!(1)) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let done = json!({"metadata": {"finalizers": null}});
        let path = "/apis/example.com/v2/namespaces/farm/widgets/one";
        cluster.send(&Method::PATCH, path, Sent::MergePatch(&done)).await.unwrap();
    });
    let done = site.ends(0, &["unstick", "namespace", "farm", "--remove-finalizers", "--yes"]);
    assert!(done.contains("Deployment default/widget-operator"), "{done}");
    assert!(!done.contains("take example.com/cleanup off"), "{done}");
    site.runtime.block_on(operator).unwrap();
    assert!(site.get("/api/v1/namespaces/farm").is_none());
}

// An APIService without a backend keeps every namespace from going. The namespace's story names it; the APIService is
// deleted, saved first; the namespace then goes by itself. `undo` puts the APIService back.
fn namespace_held_by_a_dead_apiservice(site: &Site) {
    let dead = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.gone.example.com"}, "spec": {"group": "gone.example.com", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "gone"}}});
    site.make(SERVICES, &dead);
    site.until("it is listed", || is_listed(site, "RK-A08", "v1.gone.example.com"));
    namespace(site, "field");
    site.delete("/api/v1/namespaces/field");
    site.until("it is listed", || is_listed(site, "RK-A06", "field"));
    let refused = site.ends(5, &["unstick", "namespace", "field", "--yes"]);
    assert!(refused.contains("rekindle unstick apiservice v1.gone.example.com"), "{refused}");
    site.ends(0, &["unstick", "apiservice", "v1.gone.example.com", "--yes"]);
    site.until("the namespace goes", || site.get("/api/v1/namespaces/field").is_none());
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    let path = format!("{SERVICES}/v1.gone.example.com");
    assert_eq!(site.get(&path).unwrap()["spec"]["service"]["name"], "gone");
    site.delete(&path);
}

// A CRD's conversion webhook is gone with its operator: objects can't be read in the older version. As all are stored in
// one version, the CRD converts without it, and `undo` puts the webhook back.
fn crd_with_a_dead_conversion_webhook(site: &Site) {
    make_crd(site, "gadgets", "Gadget");
    let object = json!({"apiVersion": "example.com/v2", "kind": "Gadget", "metadata": {"name": "one"}});
    site.make("/apis/example.com/v2/namespaces/default/gadgets", &object);
    let path = format!("{CRDS}/gadgets.example.com");
    let conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "converter"}}}});
    site.patch(&path, &json!({"spec": {"conversion": conversion}}));
    let old = "/apis/example.com/v1/gadgets";
    let read = || site.runtime.block_on(site.cluster.get(old));
    site.until("lists fail", || read().is_err());
    assert!(is_listed(site, "RK-A09", "gadgets.example.com"));
    site.ends(0, &["unstick", "crd", "gadgets.example.com", "--yes"]);
    site.until("lists work", || read().is_ok());
    assert_eq!(read().unwrap().unwrap()["items"][0]["apiVersion"], "example.com/v1");
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    assert_eq!(
        site.get(&path).unwrap()["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["name"],
        "converter"
    );
    site.patch(&path, &json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}}));
}

// A CRD that is deleted takes all its objects with it, and one of them is held. `undo` makes the type and the object
// again.
fn crd_held_by_its_objects(site: &Site) {
    make_crd(site, "things", "Thing");
    widget(site, "default", "things", "Thing", "kubectl-create");
    let path = format!("{CRDS}/things.example.com");
    site.delete(&path);
    site.until("it is listed", || is_listed(site, "RK-A07", "things.example.com"));
    let refused = site.ends(5, &["unstick", "crd", "things.example.com", "--yes"]);
    assert!(refused.contains("Thing default/one"), "{refused}");
    site.ends(0, &["unstick", "crd", "things.example.com", "--remove-finalizers", "--yes"]);
    assert!(site.get(&path).is_none());
    assert_eq!(keys(site, "/example.com/things"), Vec::<String>::new());
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    let thing = "/apis/example.com/v2/namespaces/default/things/one";
    assert_eq!(site.get(thing).unwrap()["metadata"]["finalizers"], json!(["example.com/cleanup"]));
    site.patch(thing, &json!({"metadata": {"finalizers": null}}));
}

// A claim that a pod uses is not to be torn away under it: the user is named, and once it is gone the claim goes by itself.
// One held by a driver that is gone goes by consent.
fn claims_in_use_and_claims_forgotten(site: &Site) {
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, finalizers: Value| {
        site.make(
            claims,
            &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "finalizers": finalizers}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "none", "resources": {"requests": {"storage": "1Mi"}}}}),
        );
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "shelf"}});
    site.make("/api/v1/nodes", &node);
    claim("used", json!([]));
    claim("forgotten", json!(["driver.example.com/volume"]));
    let pods = "/api/v1/namespaces/default/pods";
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "used"}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": {"nodeName": "shelf",
        "terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [{"name": "main", "image": "none"}]}});
    site.make(pods, &pod);
    site.delete(&format!("{claims}/used"));
    site.delete(&format!("{claims}/forgotten"));
    site.until("both are listed", || {
        is_listed(site, "RK-A10", "used") && is_listed(site, "RK-A10", "forgotten")
    });
    let refused = site.ends(5, &["unstick", "pvc", "used", "--remove-finalizers", "--yes"]);
    assert!(refused.contains("pod default/user"), "{refused}");
    site.ends(0, &["unstick", "pvc", "forgotten", "--remove-finalizers", "--yes"]);
    assert!(site.get(&format!("{claims}/forgotten")).is_none());
    site.delete(&format!("{pods}/user"));
    site.until("the used claim goes by itself", || site.get(&format!("{claims}/used")).is_none());
}

// A namespace is deleted while the host of one of its pods is off. The pod and its claim hold it, not only their finalizers:
// both are named with what to do, and the claim keeps its protection though finalizers may be removed. Once the pod is gone
// the namespace goes by itself.
fn namespace_with_a_pod_on_a_silent_node(site: &Site) {
    namespace(site, "yard");
    let claims = "/api/v1/namespaces/yard/persistentvolumeclaims";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "resources": {"requests": {"storage": "1Mi"}}}});
    site.make(claims, &claim);
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": {"nodeName": "shelf",
        "terminationGracePeriodSeconds": 2, "volumes": volumes, "containers": [{"name": "main", "image": "none"}]}});
    let pods = "/api/v1/namespaces/yard/pods";
    site.until("the service account is there", || {
        site.get("/api/v1/namespaces/yard/serviceaccounts/default").is_some()
    });
    site.make(pods, &pod);
    site.delete("/api/v1/namespaces/yard");
    site.until("it is listed", || is_listed(site, "RK-A06", "yard"));
    let refused = site.ends(5, &["unstick", "namespace", "yard", "--remove-finalizers", "--yes"]);
    for part in [
        "Pod yard/writer: the kubelet of shelf does not report",
        "rekindle node fence shelf",
        "PersistentVolumeClaim yard/data: in use by Pod yard/writer",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let claim = site.get(&format!("{claims}/data")).unwrap();
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let now = json!({"gracePeriodSeconds": 0});
    let path = format!("{pods}/writer");
    site.runtime.block_on(site.cluster.send(&Method::DELETE, &path, Sent::Object(&now))).unwrap();
    site.until("the namespace goes", || site.get("/api/v1/namespaces/yard").is_none());
}

// Who may read nothing is not told that nothing is stuck: what could not be read is named, and the exit code says so.
fn nothing_read_is_no_all_clear(site: &mut Site) {
    let role = ["create", "clusterrole", "blind", "--verb=get", "--resource=namespaces"];
    site.plane.kubectl(&role).unwrap();
    site.plane.kubectl(&["create", "serviceaccount", "blind", "-n", "kube-system"]).unwrap();
    let bind = [
        "create",
        "clusterrolebinding",
        "blind",
        "--clusterrole=blind",
        "--serviceaccount=kube-system:blind",
    ];
    site.plane.kubectl(&bind).unwrap();
    let token = site.plane.kubectl(&["create", "token", "blind", "-n", "kube-system"]).unwrap();
    let text = std::fs::read_to_string(&site.kubeconfig).unwrap();
    let (before, rest) = text.split_once("token: '").unwrap();
    let (_, after) = rest.split_once('\'').unwrap();
    site.kubeconfig = site.dir.join("blind.conf");
    std::fs::write(&site.kubeconfig, format!("{before}token: '{}'{after}", token.trim())).unwrap();
    for args in [&["unstick"][..], &["unstick", "pod", "--yes"][..], &["unstick", "pvc", "x", "--yes"][..]] {
        let said = site.ends(1, args);
        assert!(said.contains("forbidden") && !said.contains("Nothing is stuck"), "{said}");
        assert!(!said.contains("nothing of that is stuck"), "{said}");
    }
}

// An admission webhook without a backend refuses what it is asked about. Only its own entry is let pass, and `undo` puts
// its policy back: then it refuses again.
fn webhook_without_a_backend(site: &Site) {
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let hook = |name: &str, resource: &str| {
        json!({"name": name, "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "default", "name": name.split('.').next()}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}]})
    };
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "guards"}, "webhooks": [hook("first.example.com", "podtemplates"),
        hook("second.example.com", "limitranges")]});
    site.make(configurations, &configuration);
    let limit = |name: &str| {
        let object = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": []}});
        let path = "/api/v1/namespaces/default/limitranges";
        site.runtime.block_on(site.cluster.send(&Method::POST, path, Sent::Object(&object))).is_ok()
    };
    site.until("it refuses", || !limit("refused"));
    let found = site.json(&["unstick"]);
    assert!(found.to_string().contains("requests for limitranges are refused"), "{found}");
    site.ends(0, &["unstick", "webhook", "guards", "--yes"]);
    site.until("it lets pass", || limit("passes"));
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    let path = format!("{configurations}/guards");
    assert_eq!(site.get(&path).unwrap()["webhooks"][1]["failurePolicy"], "Fail");
    site.until("it refuses again", || !limit("refused-again"));
    site.delete(&path);
}

// One control plane for all stories: a real one, where each thing is stuck as it would be at night; with exactly the
// rights that are shipped for it.
#[test]
fn stuck_objects_of_every_kind_are_let_go() {
    let mut site = Site::start(&[]);
    site.limit_to("unstick");
    let nothing = site.json(&["unstick"]);
    assert_eq!(nothing["stuck"], json!([]), "a new cluster has nothing stuck: {nothing}");
    make_crd(&site, "widgets", "Widget");
    webhook_without_a_backend(&site);
    crd_with_a_dead_conversion_webhook(&site);
    crd_held_by_its_objects(&site);
    namespace_held_by_a_finalizer(&site);
    namespace_whose_controller_is_scaled_down(&site);
    claims_in_use_and_claims_forgotten(&site);
    namespace_with_a_pod_on_a_silent_node(&site);
    namespace_held_by_a_dead_apiservice(&site);
    nothing_read_is_no_all_clear(&mut site);
}
