//! The seams to the outside: hosts, etcd, the API server; real and simulated.
