//! `SetKubeadmDataDir`: the data dir in kubeadm's own ConfigMap, so that its next upgrade keeps the one now used.

use super::api::{Api, refused};
use super::context::{Ctx, outputs};
use crate::error::StepError;
use rekindle_model::HostPath;
use rekindle_model::event::Outputs;
use serde_json::Value;

const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
const FIELD: &str = "/data/ClusterConfiguration";

pub(super) async fn set_data_dir(
    ctx: &Ctx<'_>,
    from: &HostPath,
    to: &HostPath,
) -> Result<Outputs, StepError> {
    let api = Api::on_this_host(ctx).await?;
    for _ in 0..3 {
        let Some(mut map) = api.get_json(ctx, PATH).await? else {
            return Err(StepError::Moved(format!("ConfigMap {PATH} does not exist")));
        };
        let text = map.pointer(FIELD).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(changed) = with_data_dir(&text, from, to)? else {
            return Ok(outputs! { "dataDir" => to });
        };
        if let Some(field) = map.pointer_mut(FIELD) {
            *field = Value::String(changed);
        }
        let answer = api.put_json(ctx, PATH, &map).await?;
        match answer.status {
            200 => return Ok(outputs! { "dataDir" => to }),
            409 => {}
            _ => return Err(refused("PUT", PATH, &answer)),
        }
    }
    Err(StepError::Moved(format!("ConfigMap {PATH} is being written by somebody else")))
}

/// The text with that one line changed; none when it says `to` already. Other lines, and comments, stay as they are.
fn with_data_dir(text: &str, from: &HostPath, to: &HostPath) -> Result<Option<String>, StepError> {
    let value = |line: &str| {
        let rest = line.trim_start().strip_prefix("dataDir:")?;
        Some(rest.trim().trim_matches(['"', '\'']).to_owned())
    };
    let mut values = text.lines().filter_map(value);
    match (values.next(), values.next()) {
        (Some(present), None) if present == to.as_str() => return Ok(None),
        (Some(present), None) if present == from.as_str() => {}
        (present, _) => {
            let told = present.unwrap_or_else(|| "nothing".into());
            return Err(StepError::Moved(format!(
                "kubeadm-config names the data dir {told}, expected {from} once"
            )));
        }
    }
    let lines = text.split_inclusive('\n').map(|line| match value(line) {
        Some(_) => line.replacen(from.as_str(), to.as_str(), 1),
        None => line.to_owned(),
    });
    Ok(Some(lines.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The ConfigMap is the user's: one value changes, comments and order stay, and doing it twice changes nothing.
    #[test]
    fn only_the_one_value_changes() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\netcd:\n  local:\n    dataDir: /var/lib/etcd # keep\nx: /var/lib/etcd\n";
        let (old, new) = (HostPath::from("/var/lib/etcd"), HostPath::from("/srv/etcd"));
        let plain = text.replace(" # keep", "");
        let changed = with_data_dir(&plain, &old, &new).unwrap().unwrap();
        assert_eq!(changed, plain.replacen("/var/lib/etcd", "/srv/etcd", 1));
        assert_eq!(with_data_dir(&changed, &old, &new).unwrap(), None);
        assert!(with_data_dir("etcd: {}", &old, &new).is_err());
    }
}
