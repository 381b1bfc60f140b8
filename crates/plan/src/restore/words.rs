//! What the operator is told of a restore: what is done and why, its risks, the way back.

use super::Restore;
use crate::parts::has_api_server;
use crate::paths::base;
use crate::words::{and_list, mebibytes, span, time};
use rekindle_model::Seen;
use rekindle_model::diagnosis::EtcdVerdict;
use rekindle_model::plan::Cost;
use rekindle_model::source::{Identity, PointProof, SourceKind};
use rekindle_model::step::RestoreForm;

impl Restore<'_, '_> {
    pub(super) fn summary(&self) -> String {
        let names: Vec<String> = self.new_members.iter().map(|m| m.name.clone()).collect();
        let why = if self.context.goal.go_back {
            "You asked to go back in time"
        } else if self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter {
            "An empty cluster sits in the place of the lost one, and the old data survives elsewhere"
        } else if self.survey.voters == 1 {
            "The data of the only etcd member is lost"
        } else {
            "Too many etcd members lost their data for a quorum"
        };
        let age = match (&self.source.kind, self.source.taken_ms.known()) {
            (SourceKind::SnapshotFile(_), Some(taken)) => format!(" of {}", time(*taken)),
            _ => String::new(),
        };
        let form = match self.form {
            RestoreForm::Exact => format!("at its own revision {}", self.facts.revision),
            RestoreForm::Bumped { to_revision } => {
                format!(
                    "raised from revision {} to {to_revision}, above all that clients have seen",
                    self.facts.revision
                )
            }
        };
        let lost = match self.survey.lost.as_slice() {
            [] => String::new(),
            lost => {
                let names: Vec<String> = lost.iter().map(|l| l.name.clone()).collect();
                format!(
                    " Without {}: their hosts are lost; add them later as learners, one at a time.",
                    and_list(&names)
                )
            }
        };
        format!(
            "{why}, so {} {} restored from {}{age} ({}), {form}, as a new cluster.{lost}",
            and_list(&names),
            if names.len() == 1 { "is" } else { "are" },
            self.source.point.as_ref().map_or_else(|| self.source.kind.to_string(), ToString::to_string),
            mebibytes(self.facts.size_bytes),
        )
    }

    pub(super) fn warnings(&self, cost: &Cost) -> Vec<String> {
        let mut warnings = crate::restart::unresolved(self.context);
        match &cost.time_lost_seconds {
            Seen::Known(0) => {}
            Seen::Known(seconds) => {
                warnings.push(format!("Up to {} of acknowledged writes are lost.", span(*seconds)));
            }
            Seen::Unknown(why) => warnings.push(format!("How much is lost can't be bounded: {why}.")),
        }
        if self.form == RestoreForm::Exact {
            warnings.push(
                "Revisions are not raised (--exact): clients that saw higher ones may miss changes until restarted.".into(),
            );
        }
        if let Some(point) = &self.source.point
            && !matches!(point.proof, PointProof::Equal(_))
        {
            warnings.push(format!("The point in time is {}.", point.proof));
        }
        if self.source.copied_db {
            warnings.push(
                "The source is a copied db without a SHA-256: its structure was checked, but nothing proves its content. \
                 A copy made while etcd was writing may mix two moments."
                    .into(),
            );
        }
        if let Identity::Unknown(why) = &self.source.identity {
            warnings.push(format!(
                "Whose data the source is could not be told ({why}); you consented to take it."
            ));
        }
        if self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter {
            warnings.push(
                "What was written to the empty cluster since it began is saved, but not carried over.".into(),
            );
        }
        for lost in &self.survey.lost {
            warnings.push(format!(
                "You attest that the host of {} is off for good. Its old member can't join the new cluster if it returns.",
                lost.name
            ));
        }
        if !self.survey.members.iter().any(|m| has_api_server(m.host)) {
            warnings.push(
                "No API server was found on these hosts: those elsewhere are not stopped and must be restarted after.".into(),
            );
        }
        warnings
    }

    pub(super) fn how_to_go_back(&self) -> String {
        let run = &self.context.goal.run_id;
        let folders: Vec<String> = self
            .survey
            .members
            .iter()
            .map(|m| {
                let mounted = m.host.etcd_data.known().is_some_and(|d| d.is_mount_point);
                format!("{}:{}", m.host.id, base(&m.config.data_dir, mounted, run).join("old-member"))
            })
            .collect();
        let old = match self.context.goal.data_dir {
            Some(_) => "Old data stays where it is.".to_owned(),
            None => format!("Old data, where there is any, is kept in {}.", and_list(&folders)),
        };
        format!(
            "Until the API servers start, `rekindle runs undo {run}` puts everything back as it was. After that undo \
             refuses, because clients may have written. {old}"
        )
    }
}
