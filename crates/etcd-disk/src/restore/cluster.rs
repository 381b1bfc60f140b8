//! The cluster to be founded: its token and its members, checked as etcd's bootstrap checks them.
//!
//! Source: `types.NewURLs`, `types.NewURLsMap`, `ServerConfig.VerifyBootstrap`, `membership.Member` in etcd 3.6.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::ids::{EtcdId, cluster_id, member_id};

/// A founding member: its name and where its peers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// etcd's `--name`.
    pub name: String,
    /// Peer URLs, `http(s)://host:port`; kept sorted.
    pub peer_urls: Vec<String>,
}

/// A cluster to be founded, with the ids its members will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCluster {
    id: EtcdId,
    members: Vec<(EtcdId, NewMember)>,
}

impl NewCluster {
    /// Checks the members and computes their ids. The token should be fresh for each recovery: members of an older
    /// cluster with the same URLs and token would have the same ids, and could disturb the new one.
    ///
    /// # Errors
    /// [`Error::Cluster`]: no members, a name or URL twice, a URL that etcd refuses, equal ids.
    pub fn new(token: &str, members: Vec<NewMember>) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::Cluster("it has no members".into()));
        }
        let (mut names, mut urls) = (BTreeSet::new(), BTreeSet::new());
        let mut by_id = Vec::with_capacity(members.len());
        for mut member in members {
            check_member(&member)?;
            member.peer_urls.sort();
            if !names.insert(member.name.clone()) {
                return Err(Error::Cluster(format!("two members are named {:?}", member.name)));
            }
            if let Some(twice) = member.peer_urls.iter().find(|url| !urls.insert((*url).clone())) {
                return Err(Error::Cluster(format!("the peer URL {twice} is given twice")));
            }
            by_id.push((member_id(&member.peer_urls, token), member));
        }
        by_id.sort_by_key(|(id, _)| *id);
        if by_id.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(Error::Cluster("two members have the same id: take another token".into()));
        }
        let ids: Vec<EtcdId> = by_id.iter().map(|(id, _)| *id).collect();
        let id = cluster_id(&ids);
        if id.0 == 0 || ids.iter().any(|member| member.0 == 0) {
            return Err(Error::Cluster("an id is 0, which etcd does not allow: take another token".into()));
        }
        Ok(Self { id, members: by_id })
    }

    /// The same from etcd's `--initial-cluster`: `name=url[,name=url...]`, a name repeated for each of its URLs.
    ///
    /// # Errors
    /// [`Error::Cluster`] as [`NewCluster::new`], or when the text has another form.
    pub fn from_initial_cluster(initial_cluster: &str, token: &str) -> Result<Self> {
        let mut members: Vec<NewMember> = Vec::new();
        for part in initial_cluster.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, url) =
                part.split_once('=').ok_or_else(|| Error::Cluster(format!("{part:?} is not name=url")))?;
            match members.iter_mut().find(|member| member.name == name) {
                Some(member) => member.peer_urls.push(url.into()),
                None => members.push(NewMember { name: name.into(), peer_urls: vec![url.into()] }),
            }
        }
        Self::new(token, members)
    }

    /// The id the cluster will have.
    pub fn cluster_id(&self) -> EtcdId {
        self.id
    }

    /// The members with their ids, ascending by id: the order of the founding log.
    pub fn by_id(&self) -> &[(EtcdId, NewMember)] {
        &self.members
    }

    /// The id of the member of this name.
    pub fn member_id(&self, name: &str) -> Option<EtcdId> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id)
    }
}

fn check_member(member: &NewMember) -> Result<()> {
    if member.name.is_empty() {
        return Err(Error::Cluster("a member has no name".into()));
    }
    if member.peer_urls.is_empty() {
        return Err(Error::Cluster(format!("member {:?} has no peer URL", member.name)));
    }
    for url in &member.peer_urls {
        check_url(url)
            .map_err(|why| Error::Cluster(format!("peer URL {url:?} of member {:?}: {why}", member.name)))?;
    }
    Ok(())
}

/// What etcd takes as a peer URL: scheme, host, port, and nothing after it.
fn check_url(url: &str) -> Result<(), &'static str> {
    let (scheme, host_port) = url.split_once("://").ok_or("no scheme")?;
    if !matches!(scheme, "http" | "https" | "unix" | "unixs") {
        return Err("its scheme is none of http, https, unix, unixs");
    }
    if scheme.starts_with("unix") {
        return Ok(());
    }
    if host_port.contains(['/', '?', '#', '@', ' ']) {
        return Err("it has more than a host and a port");
    }
    let (host, port) = host_port.rsplit_once(':').ok_or("no port")?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err("its host is none");
    }
    port.parse::<u16>().map(|_| ()).map_err(|_| "its port is no number up to 65535")
}

/// A member as etcd keeps it: `{"id":N,"peerURLs":[...],"name":"..."}`.
pub(crate) fn member_json(id: EtcdId, member: &NewMember) -> String {
    go_json(&json!({ "id": id.0, "peerURLs": member.peer_urls, "name": member.name }))
}

/// JSON as Go's encoder writes it: compact, with `<`, `>` and `&` escaped.
pub(crate) fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_are_those_of_initial_cluster() {
        let text = "m1=http://127.0.0.1:1001, m2=http://127.0.0.1:1002,m3=http://127.0.0.1:1003";
        let cluster = NewCluster::from_initial_cluster(text, "tok").unwrap();
        assert_eq!(cluster.cluster_id().to_string(), "b144f6e17d320a6");
        assert_eq!(cluster.member_id("m1").unwrap().to_string(), "f81ee44e01b35da3");
        assert_eq!(cluster.by_id()[0].1.name, "m3");
        let (id, m3) = &cluster.by_id()[0];
        assert_eq!(
            member_json(*id, m3),
            r#"{"id":6894161728546489738,"peerURLs":["http://127.0.0.1:1003"],"name":"m3"}"#
        );
    }

    #[test]
    fn a_cluster_that_etcd_would_refuse_is_refused() {
        for (text, why) in [
            ("", "no members"),
            ("m1", "not name=url"),
            ("=http://h:1", "no name"),
            ("m1=h:2380", "no scheme"),
            ("m1=ftp://h:2380", "scheme"),
            ("m1=http://h", "no port"),
            ("m1=http://h:x", "port"),
            ("m1=http://h:2380/x", "more than"),
            ("m1=http://::1:2380", "host"),
            ("m1=http://h:1,m2=http://h:1", "twice"),
        ] {
            let error = NewCluster::from_initial_cluster(text, "t").unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
