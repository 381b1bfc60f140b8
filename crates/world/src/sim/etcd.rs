//! A simulated etcd: it really reads its data dir when it starts, and refuses what an etcd would refuse. A cluster is what
//! runs with one cluster id; writes live in memory only.

use crate::fault::{Fault, Outcome};
use crate::host::{EtcdCall, Reply, Saved};
use crate::sim::state::State;
use crate::words::flag;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use rekindle_model::etcd::{EtcdLive, EtcdMember, EtcdStatus, HashKv};
use rekindle_model::seen::chain;
use rekindle_model::{HostId, MemberId, Seen};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek as _;
use std::os::fd::AsRawFd as _;

/// In the data dir of a member that joined a running cluster: its id (hex). Its other files are copies of a member's.
const JOINED_AS: &str = "member/sim-joined-as";

/// A running etcd.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its db, open: readable also when its name is gone.
    file: File,
    pub(super) member: MemberId,
    pub(super) cluster: MemberId,
    pub(super) verified: Verified,
}

/// What the members of one cluster agree on.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) members: Vec<EtcdMember>,
    pub(super) revision: i64,
    deleted: Vec<String>,
    added: u64,
    /// Leader leases in `kube-system`: holder and the revision they were written at.
    pub(super) leases: BTreeMap<String, (String, i64)>,
}

fn disk(error: &etcd_disk::Error) -> Fault {
    Fault::failed(chain(error))
}

impl Instance {
    fn data_dir(root: &Utf8Path, command: &[String]) -> Utf8PathBuf {
        root.join(flag(command, "data-dir").unwrap_or("/var/lib/etcd").trim_start_matches('/'))
    }

    /// Starts from a data dir, as its command line says.
    pub(super) fn boot(root: &Utf8Path, command: &[String]) -> Outcome<Self> {
        let under = |path: &str| root.join(path.trim_start_matches('/'));
        let data_dir = Self::data_dir(root, command);
        let wal_dir = flag(command, "wal-dir").map_or_else(|| data_dir.join("member/wal"), under);
        let path = data_dir.join("member/snap/db");
        let file = File::open(&path).map_err(|e| Fault::io(format!("open {path}"), &e))?;
        let wal = etcd_disk::wal::facts(wal_dir.as_std_path()).map_err(|e| disk(&e))?;
        let (Some(founder), Some(cluster)) = (wal.member_id, wal.cluster_id) else {
            return Err(Fault::failed(format!("{wal_dir} does not tell whose it is")));
        };
        let verified = verify(&file, None)?;
        if let Ok(joined) = std::fs::read_to_string(data_dir.join(JOINED_AS)) {
            let member = u64::from_str_radix(&joined, 16).map_err(|e| Fault::failed(e.to_string()))?;
            return Ok(Self { file, member: MemberId(member), cluster: MemberId(cluster.0), verified });
        }
        let member = founder;
        if !verified.facts.members.iter().any(|m| m.id == member) {
            return Err(Fault::failed(format!("{path} knows no member {member}")));
        }
        let name = flag(command, "name").unwrap_or_default();
        let own = verified.facts.members.iter().find(|m| m.id == member).map(|m| m.name.as_str());
        if own != Some(name) {
            return Err(Fault::failed(format!("{path} is of member {own:?}, this is {name:?}")));
        }
        let listed = flag(command, "initial-cluster").unwrap_or_default();
        if flag(command, "initial-cluster-state") != Some("existing") && !listed.contains(&format!("{name}="))
        {
            return Err(Fault::failed(format!("{name} is not in its own --initial-cluster {listed}")));
        }
        Ok(Self { file, member: MemberId(member.0), cluster: MemberId(cluster.0), verified })
    }

    /// The cluster as this member's disk has it.
    pub(super) fn cluster_on_disk(&self) -> Cluster {
        let members = self.verified.facts.members.iter();
        let members = members.map(|m| EtcdMember {
            id: MemberId(m.id.0),
            name: m.name.clone(),
            peer_urls: m.peer_urls.clone(),
            client_urls: m.client_urls.clone(),
            is_learner: m.is_learner,
        });
        let held = |name: &str| (name.to_owned(), ("before_1234".to_owned(), 1));
        Cluster {
            members: members.collect(),
            revision: self.verified.revision,
            deleted: Vec::new(),
            added: 0,
            leases: ["kube-controller-manager", "kube-scheduler"].map(held).into(),
        }
    }
}

/// Verifies an open db file, whatever its name is now.
fn verify(file: &File, hash_revision: Option<i64>) -> Outcome<Verified> {
    let path = Utf8PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let snapshot = SnapshotFile::open(path.as_std_path(), TrailerPolicy::Skip).map_err(|e| disk(&e))?;
    let options = VerifyOptions { hash_revision, group: Some(&one_group), ..VerifyOptions::default() };
    snapshot.verify(&options, &mut |_, _| {}).map_err(|e| disk(&e))
}

impl State {
    /// Whether the etcd on a host is in a quorum.
    pub(super) fn in_quorum(&self, host: &HostId) -> bool {
        let Some(instance) = self.hosts.get(host).and_then(|h| h.etcd.as_ref()) else { return false };
        let Some(cluster) = self.clusters.get(&instance.cluster) else { return false };
        let running = |member: &EtcdMember| {
            self.hosts
                .values()
                .filter_map(|h| h.etcd.as_ref())
                .any(|i| i.cluster == instance.cluster && i.member == member.id)
        };
        let voters: Vec<&EtcdMember> = cluster.members.iter().filter(|m| !m.is_learner).collect();
        voters.iter().filter(|m| running(m)).count() > voters.len() / 2
    }

    fn instance(&self, host: &HostId) -> Outcome<(&Instance, &Cluster)> {
        let instance = self.hosts.get(host).and_then(|h| h.etcd.as_ref());
        let instance = instance.ok_or_else(|| Fault::unavailable("etcd: connection refused"))?;
        let cluster = self.clusters.get(&instance.cluster);
        Ok((instance, cluster.ok_or_else(|| Fault::failed("a running etcd without a cluster"))?))
    }

    fn quorum(&self, host: &HostId) -> Outcome<()> {
        self.instance(host)?;
        if self.in_quorum(host) { Ok(()) } else { Err(Fault::unavailable("etcdserver: request timed out")) }
    }

    fn quorum_mut(&mut self, host: &HostId) -> Outcome<&mut Cluster> {
        self.quorum(host)?;
        let cluster = self.instance(host)?.0.cluster;
        self.clusters.get_mut(&cluster).ok_or_else(|| Fault::failed("a running etcd without a cluster"))
    }

    /// The host whose etcd answers at a client URL; loopback is the asking host's own.
    pub(super) fn host_at(&self, asking: &HostId, url: &str) -> HostId {
        let named = self.clusters.iter().find_map(|(id, cluster)| {
            let member = cluster.members.iter().find(|m| m.client_urls.iter().any(|u| u == url))?;
            let runs = |i: &Instance| i.cluster == *id && i.member == member.id;
            let host = self.hosts.iter().find(|(_, h)| h.etcd.as_ref().is_some_and(runs))?;
            Some(host.0.clone())
        });
        named.unwrap_or_else(|| asking.clone())
    }

    /// An etcd without data and with `existing` joins the running cluster that lists its peer URL: it gets a copy of a
    /// member's files. Nothing happens when there is no such cluster, or there is data.
    pub(super) fn join(&mut self, host: &HostId, command: &[String]) -> Outcome<()> {
        let Some(data_dir) = self.hosts.get(host).map(|h| Instance::data_dir(&h.root, command)) else {
            return Ok(());
        };
        if flag(command, "initial-cluster-state") != Some("existing") || data_dir.join("member").exists() {
            return Ok(());
        }
        let own = flag(command, "initial-advertise-peer-urls").unwrap_or_default();
        let found = self.clusters.iter().find_map(|(id, cluster)| {
            let member =
                cluster.members.iter().find(|m| m.is_learner && m.peer_urls.iter().any(|u| u == own))?;
            let donor = self.hosts.values().find(|h| h.etcd.as_ref().is_some_and(|i| i.cluster == *id))?;
            Some((member.id, donor.root.join("var/lib/etcd")))
        });
        let Some((member, donor)) = found else { return Ok(()) };
        let io = |e: std::io::Error| Fault::io(format!("join in {data_dir}"), &e);
        for folder in ["member/snap", "member/wal"] {
            std::fs::create_dir_all(data_dir.join(folder)).map_err(io)?;
            for entry in donor.join(folder).read_dir_utf8().map_err(io)? {
                let entry = entry.map_err(io)?;
                std::fs::copy(entry.path(), data_dir.join(folder).join(entry.file_name())).map_err(io)?;
            }
        }
        std::fs::write(data_dir.join(JOINED_AS), member.to_string()).map_err(io)
    }

    fn status(&self, host: &HostId) -> Outcome<EtcdStatus> {
        let (instance, cluster) = self.instance(host)?;
        let quorum = self.in_quorum(host);
        let leader = cluster.members.first().filter(|_| quorum).map_or(MemberId(0), |m| m.id);
        Ok(EtcdStatus {
            cluster_id: instance.cluster,
            member_id: instance.member,
            version: "3.6.14".into(),
            revision: if quorum { cluster.revision } else { instance.verified.revision },
            db_size_bytes: i64::try_from(instance.verified.db_bytes).unwrap_or(i64::MAX),
            leader,
            raft_index: 10,
            raft_applied_index: 10,
            raft_term: 2,
            is_learner: false,
            errors: if quorum { Vec::new() } else { vec!["etcdserver: no leader".into()] },
        })
    }

    /// Everything at once, as an observer asks.
    pub(super) fn etcd_live(&self, host: &HostId) -> EtcdLive {
        let seen = |result: Outcome<EtcdStatus>| result.map_or_else(|f| Seen::Unknown(f.what), Seen::Known);
        let instance = self.instance(host).ok();
        EtcdLive {
            kube_system_created_s: None,
            status: seen(self.status(host)),
            members: instance.map_or_else(Seen::default, |(_, c)| Seen::Known(c.members.clone())),
            quorum: instance.map_or_else(Seen::default, |_| Seen::Known(self.in_quorum(host))),
            alarms: Seen::Known(Vec::new()),
            live_keys: instance.map_or_else(Seen::default, |(i, _)| Seen::Known(readable_keys(&i.verified))),
            kube_system_uid: Seen::default(),
            note: None,
        }
    }

    /// One call.
    pub(super) fn etcd_call(&mut self, host: &HostId, root: &Utf8Path, call: EtcdCall) -> Outcome<Reply> {
        match call {
            EtcdCall::Status => self.status(host).map(Reply::Status),
            EtcdCall::HashKv { revision } => {
                let (instance, _) = self.instance(host)?;
                let verified = match revision {
                    0 => instance.verified.clone(),
                    same if same == instance.verified.revision => instance.verified.clone(),
                    other => verify(&instance.file, Some(other))?,
                };
                let own = verified.hash_kv;
                let hash =
                    HashKv { hash: own.hash, revision: own.revision, compact_revision: own.compact_revision };
                Ok(Reply::HashKv(hash))
            }
            EtcdCall::CountKeys => {
                let (instance, cluster) = self.instance(host)?;
                Ok(Reply::Count(readable_keys(&instance.verified) - cluster.deleted.len() as u64))
            }
            EtcdCall::MemberList { linearizable } => {
                if linearizable {
                    self.quorum(host)?;
                }
                Ok(Reply::Members(self.instance(host)?.1.members.clone()))
            }
            EtcdCall::Range { prefix, .. } => self.range(host, &prefix),
            EtcdCall::DeleteKeys { keys } => {
                self.quorum(host)?;
                let cluster = self.instance(host)?.0.cluster;
                if let Some(cluster) = self.clusters.get_mut(&cluster) {
                    cluster.deleted.extend(keys);
                    cluster.revision += 1;
                }
                Ok(Reply::Done)
            }
            EtcdCall::Snapshot { to } => {
                let (instance, _) = self.instance(host)?;
                let mut file = &instance.file;
                file.rewind().map_err(|e| Fault::io("rewind a db", &e))?;
                let to = root.join(to.as_str().trim_start_matches('/'));
                let (sha256, bytes) = super::store::write_snapshot(&mut file, &to)?;
                Ok(Reply::Saved(Saved { bytes, sha256, has_trailer: true }))
            }
            EtcdCall::AddLearner { peer_urls } => {
                let cluster = self.quorum_mut(host)?;
                if let Some(known) = cluster.members.iter().find(|m| m.peer_urls == peer_urls) {
                    return Ok(Reply::Members(vec![known.clone()]));
                }
                cluster.added += 1;
                let learner = EtcdMember {
                    id: MemberId(0xadd0_0000 + cluster.added),
                    name: String::new(),
                    peer_urls,
                    client_urls: Vec::new(),
                    is_learner: true,
                };
                cluster.members.push(learner.clone());
                Ok(Reply::Members(vec![learner]))
            }
            EtcdCall::Promote { member } => {
                let runs = self.hosts.values().filter_map(|h| h.etcd.as_ref()).any(|i| i.member == member);
                let cluster = self.quorum_mut(host)?;
                let learner = cluster.members.iter_mut().find(|m| m.id == member && runs);
                let refused =
                    || Fault::failed("can only promote a learner member which is in sync with leader");
                learner.ok_or_else(refused)?.is_learner = false;
                Ok(Reply::Done)
            }
            EtcdCall::Remove { member } => {
                self.quorum_mut(host)?.members.retain(|m| m.id != member);
                Ok(Reply::Done)
            }
        }
    }

    fn range(&self, host: &HostId, prefix: &str) -> Outcome<Reply> {
        self.quorum(host)?;
        let (instance, cluster) = self.instance(host)?;
        let path = Utf8PathBuf::from(format!("/proc/self/fd/{}", instance.file.as_raw_fd()));
        let snapshot = SnapshotFile::open(path.as_std_path(), TrailerPolicy::Skip).map_err(|e| disk(&e))?;
        let mut pairs = Vec::new();
        etcd_disk::live::for_each(snapshot.bolt(), path.as_std_path(), &mut |row| {
            let key = String::from_utf8_lossy(row.key).into_owned();
            if key.starts_with(prefix) && !cluster.deleted.contains(&key) {
                pairs.push((key, row.value.to_vec()));
            }
            Ok(())
        })
        .map_err(|e| disk(&e))?;
        Ok(Reply::Pairs(pairs))
    }
}

fn one_group(_: &[u8]) -> &str {
    ""
}

/// Live keys as `Range` counts them: without the empty key of a raised revision, which is in no group.
fn readable_keys(verified: &Verified) -> u64 {
    verified.groups.values().sum()
}
