//! What is changed on the way into another cluster: names of namespaces and storage classes, image registries, and JSON
//! patches for everything else.

use crate::error::{Error, Result};
use crate::kinds::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Changes to objects before they are restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Changes {
    /// Old name of a namespace -> new one.
    pub namespaces: BTreeMap<String, String>,
    /// Old name of a storage class -> new one.
    pub storage_classes: BTreeMap<String, String>,
    /// Start of an image's name -> what stands there instead, the longest first.
    pub images: Vec<(String, String)>,
    /// JSON patches, in this order, after all others.
    pub patches: Vec<Patch>,
}

/// JSON patches (RFC 6902) for some objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Patch {
    /// The kind, in any of its names: `deployments.apps`.
    pub kind: String,
    /// Only in this namespace (as it is called in the backup).
    pub namespace: Option<String>,
    /// Only the object of this name.
    pub name: Option<String>,
    /// The operations.
    #[schemars(with = "Vec<Value>")]
    pub patch: json_patch::Patch,
}

impl Changes {
    /// `OLD=NEW` texts of the flags.
    ///
    /// # Errors
    /// [`Error::Given`].
    pub fn new(namespaces: &[String], storage_classes: &[String], images: &[String]) -> Result<Self> {
        let pair = |what: &'static str, text: &String| match text.split_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
            _ => Err(Error::Given { what, text: text.clone(), why: "expected OLD=NEW".into() }),
        };
        let map = |what, texts: &[String]| texts.iter().map(|text| pair(what, text)).collect::<Result<_>>();
        let mut images: Vec<_> =
            images.iter().map(|text| pair("image mapping", text)).collect::<Result<_>>()?;
        images.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        Ok(Self {
            namespaces: map("namespace mapping", namespaces)?,
            storage_classes: map("storage class mapping", storage_classes)?,
            images,
            patches: Vec::new(),
        })
    }

    /// Reads patches from a YAML file's text: a list of [`Patch`].
    ///
    /// # Errors
    /// [`Error::Given`].
    pub fn add_patches(&mut self, file: &str, text: &[u8]) -> Result<()> {
        let patches: Vec<Patch> = serde_saphyr::from_slice(text).map_err(|error| Error::Given {
            what: "patch file",
            text: file.to_owned(),
            why: error.to_string(),
        })?;
        self.patches.extend(patches);
        Ok(())
    }

    /// The namespace's name in the new cluster.
    #[must_use]
    pub fn namespace<'a>(&'a self, name: &'a str) -> &'a str {
        self.namespaces.get(name).map_or(name, String::as_str)
    }

    /// Makes the changes. `namespace` and `name` are those of the backup.
    ///
    /// # Errors
    /// A patch that does not fit the object; the object is not restored then.
    pub(crate) fn apply(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        object: &mut Value,
    ) -> std::result::Result<(), String> {
        if !self.namespaces.is_empty() {
            self.map_namespaces(kind, object);
        }
        if !self.storage_classes.is_empty() {
            self.map_storage_classes(object);
        }
        if !self.images.is_empty() {
            self.map_images(object);
        }
        for patch in &self.patches {
            let meant = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
            if kind.is_called(&patch.kind) && meant(&patch.namespace, namespace) && meant(&patch.name, name) {
                json_patch::patch(object, &patch.patch)
                    .map_err(|error| format!("the patch does not fit: {error}"))?;
            }
        }
        Ok(())
    }

    fn map_namespaces(&self, kind: &Kind, object: &mut Value) {
        let rename = |value: Option<&mut Value>| {
            if let Some(value) = value
                && let Some(new) = value.as_str().and_then(|old| self.namespaces.get(old))
            {
                *value = new.clone().into();
            }
        };
        rename(object.pointer_mut("/metadata/namespace"));
        match kind.kind.as_str() {
            "Namespace" => {
                rename(object.pointer_mut("/metadata/name"));
                rename(object.pointer_mut("/metadata/labels/kubernetes.io~1metadata.name"));
            }
            "PersistentVolume" => rename(object.pointer_mut("/spec/claimRef/namespace")),
            "RoleBinding" | "ClusterRoleBinding" => {
                let subjects = object.pointer_mut("/subjects").and_then(Value::as_array_mut);
                for subject in subjects.into_iter().flatten() {
                    rename(subject.get_mut("namespace"));
                }
            }
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
                let hooks = object.pointer_mut("/webhooks").and_then(Value::as_array_mut);
                for hook in hooks.into_iter().flatten() {
                    rename(hook.pointer_mut("/clientConfig/service/namespace"));
                }
            }
            "APIService" => rename(object.pointer_mut("/spec/service/namespace")),
            "CustomResourceDefinition" => {
                rename(object.pointer_mut("/spec/conversion/webhook/clientConfig/service/namespace"));
            }
            _ => {}
        }
    }

    fn map_storage_classes(&self, object: &mut Value) {
        let rename = |value: Option<&mut Value>| {
            if let Some(value) = value
                && let Some(new) = value.as_str().and_then(|old| self.storage_classes.get(old))
            {
                *value = new.clone().into();
            }
        };
        rename(object.pointer_mut("/spec/storageClassName"));
        rename(object.pointer_mut("/metadata/annotations/volume.beta.kubernetes.io~1storage-class"));
        let templates = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
        for template in templates.into_iter().flatten() {
            rename(template.pointer_mut("/spec/storageClassName"));
        }
    }

    /// Wherever containers are listed, in workloads and in custom resources with pod templates of their own.
    fn map_images(&self, object: &mut Value) {
        let mut left = vec![object];
        while let Some(value) = left.pop() {
            match value {
                Value::Array(items) => left.extend(items.iter_mut()),
                Value::Object(fields) => {
                    for (name, field) in fields.iter_mut() {
                        let containers = ["containers", "initContainers", "ephemeralContainers"];
                        if let (true, Value::Array(items)) =
                            (containers.contains(&name.as_str()), &mut *field)
                        {
                            items
                                .iter_mut()
                                .filter_map(|c| c.get_mut("image"))
                                .for_each(|image| self.map_image(image));
                        }
                        left.push(field);
                    }
                }
                _ => {}
            }
        }
    }

    fn map_image(&self, image: &mut Value) {
        let Some(text) = image.as_str() else { return };
        let fits = |(old, new): &(String, String)| {
            text.strip_prefix(old.as_str()).map(|rest| format!("{new}{rest}"))
        };
        if let Some(mapped) = self.images.iter().find_map(fits) {
            *image = mapped.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    // A shop moves into another cluster: another namespace, another disk type, another registry, one replica.
    #[test]
    fn an_object_is_changed_on_its_way() {
        let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let mut changes = Changes::new(
            &texts(&["shop=shop2"]),
            &texts(&["fast=gp3"]),
            &texts(&["docker.io/=mirror/", "docker.io/library/=mirror/lib/"]),
        )
        .unwrap();
        let patches =
            "- kind: StatefulSet\n  name: db\n  patch:\n  - {op: replace, path: /spec/replicas, value: 1}\n";
        changes.add_patches("patches.yaml", patches.as_bytes()).unwrap();
        let kind = for_tests("apps", "v1", "StatefulSet", "statefulsets", true);
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": "db"},
            "spec": {"replicas": 3, "template": {"spec": {
                "containers": [{"image": "docker.io/library/pg:17"}], "initContainers": [{"image": "docker.io/x"}]}},
                "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]},
        });
        changes.apply(&kind, "shop", "db", &mut object).unwrap();
        let expected = json!({
            "metadata": {"namespace": "shop2", "name": "db"},
            "spec": {"replicas": 1, "template": {"spec": {
                "containers": [{"image": "mirror/lib/pg:17"}], "initContainers": [{"image": "mirror/x"}]}},
                "volumeClaimTemplates": [{"spec": {"storageClassName": "gp3"}}]},
        });
        assert_eq!(object, expected);
        let error = changes.apply(&kind, "shop", "db", &mut json!({"metadata": {}})).unwrap_err();
        assert!(error.contains("does not fit"), "{error}");

        let binding = for_tests("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true);
        let mut object =
            json!({"metadata": {"namespace": "a"}, "subjects": [{"namespace": "shop"}, {"name": "x"}]});
        changes.apply(&binding, "a", "b", &mut object).unwrap();
        assert_eq!(object["subjects"][0]["namespace"], "shop2");
        assert!(Changes::new(&texts(&["shop"]), &[], &[]).is_err());
    }
}
