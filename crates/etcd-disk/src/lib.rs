//! etcd on disk: snapshots, MVCC rows, WAL, members, HashKV, restore.
