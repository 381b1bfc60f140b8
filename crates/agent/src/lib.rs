//! Continuous protection: the change stream of an etcd cluster, followed and spooled.
