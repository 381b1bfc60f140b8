//! etcd: what is known of its store anywhere ([`reference`]), the verdict on each member ([`member`]), on the whole
//! ([`quorum`]), and the findings both are shown by ([`findings`]). [`rejoin`] tells members that forgot their log.

mod findings;
mod member;
mod quorum;
mod reference;
mod rejoin;

use rekindle_model::HostId;
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::finding::Evidence;
use rekindle_model::inventory::Inventory;

pub(crate) use findings::check;

/// The verdicts, with what they rest on.
#[derive(Debug)]
pub(crate) struct EtcdState {
    /// On the whole.
    pub(crate) verdict: EtcdVerdict,
    /// How the voters count, for people.
    pub(crate) arithmetic: String,
    /// On each host that has, had or must have had a member.
    pub(crate) members: Vec<Member>,
}

/// One host's member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) host: HostId,
    pub(crate) verdict: MemberVerdict,
    /// What it rests on; may be empty for Healthy and Unknown only.
    pub(crate) evidence: Vec<Evidence>,
    /// A suspicion that is no verdict: the member may have rejoined with its disk wiped.
    pub(crate) suspicion: Option<Evidence>,
}

impl EtcdState {
    /// The verdict on a host's member.
    pub(crate) fn member(&self, host: &HostId) -> Option<&MemberVerdict> {
        self.members.iter().find(|m| &m.host == host).map(|m| &m.verdict)
    }
}

/// Judges every member, then the whole.
pub(crate) fn judge(inventory: &Inventory) -> EtcdState {
    let mut members: Vec<Member> =
        inventory.hosts.iter().filter_map(|host| member::judge(inventory, host)).collect();
    // a lost host need not be among those looked at
    let elsewhere = inventory.lost_hosts.iter().filter(|id| inventory.host(id).is_none());
    members.extend(elsewhere.map(member::lost));
    let (verdict, arithmetic) = quorum::judge(inventory, &members);
    EtcdState { verdict, arithmetic, members }
}
