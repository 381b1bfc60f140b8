//! What the Kubernetes API server stores in etcd: keys and the few fields read from values.
