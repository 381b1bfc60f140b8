//! The full restore, told by golden plans: one member of a kubeadm host whose data is gone (S1), and on from there.
//! Each golden is what the operator is shown plus the data of every step; each plan must pass the linter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, fixture_single, goal, planned, text};
use insta::assert_snapshot;
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};

// The data dir of the only member is deleted while etcd is stopped; a snapshot from a minute ago is at hand.
#[test]
fn s1_single_kubeadm_host_from_a_snapshot() {
    let inventory = fixture_single().build();
    let diagnosis = diagnosis(&inventory, EtcdVerdict::DataLost, &[MemberVerdict::DataLost]);
    assert_snapshot!(text(&planned(&inventory, &diagnosis, &goal())));
}
