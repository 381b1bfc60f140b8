//! What the Kubernetes API server stores in etcd: keys and the few fields read from values.
//!
//! - [`keys`]: which resource a key belongs to, and the keys Rekindle looks for.
//! - [`object_uid`] and the like: fields of any stored object.
//! - [`namespace_uid`]: the UID of a stored Namespace; that of `kube-system` is a cluster's identity.
//!
//! Source: `k8s.io/apiserver/pkg/storage`, `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`.

pub mod keys;
mod meta;
mod namespace;
mod wire;

pub use keys::{kube_system_key, masterlease_prefix, resource_of, stored_as};
pub use meta::{allocated_range, is_encrypted, object_uid, service_cidrs};
pub use namespace::{UidFault, namespace_created_s, namespace_uid};
