//! A Secret as the server keeps it: its leaves, and who owns which.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A leaf: `["data", "tls.crt"]`.
type Leaf = Vec<String>;

/// Manager and operation.
type Owner = (String, String);

#[derive(Clone, Default)]
pub(super) struct Stored {
    pub(super) leaves: BTreeMap<Leaf, Value>,
    pub(super) owners: BTreeMap<Owner, BTreeSet<Leaf>>,
    pub(super) version: u64,
    pub(super) uid: u64,
    /// When it was changed last, RFC 3339.
    pub(super) time: String,
}

impl Stored {
    /// What an update of any kind does.
    pub(super) fn update(&mut self, manager: &str, new: &Value) {
        let new_leaves = leaves(new);
        let changed: BTreeSet<_> = new_leaves
            .iter()
            .filter(|(leaf, value)| self.leaves.get(*leaf) != Some(value))
            .map(|(leaf, _)| leaf.clone())
            .collect();
        let gone: BTreeSet<_> = self
            .leaves
            .keys()
            .filter(|leaf| !new_leaves.contains_key(*leaf))
            .cloned()
            .collect();
        for owned in self.owners.values_mut() {
            owned.retain(|leaf| !changed.contains(leaf) && !gone.contains(leaf));
        }
        if let Some(fields) = new["metadata"]
            .get("managedFields")
            .and_then(Value::as_array)
        {
            self.owners = fields.iter().map(owner).collect();
        }
        if !changed.is_empty() {
            let owner = (manager.to_owned(), "Update".to_owned());
            self.owners.entry(owner).or_default().extend(changed);
        }
        self.owners.retain(|_, owned| !owned.is_empty());
        self.leaves = new_leaves;
        self.time = now();
    }

    /// What a server-side apply does; the conflicts, if there are any.
    pub(super) fn apply(
        &mut self,
        manager: &str,
        new: &Value,
        force: bool,
    ) -> Result<(), Vec<Value>> {
        let own = (manager.to_owned(), "Apply".to_owned());
        let new_leaves = leaves(new);
        let mut conflicts = vec![];
        for (leaf, value) in &new_leaves {
            if self.leaves.get(leaf) == Some(value) {
                continue;
            }
            for (other, owned) in self.owners.iter_mut().filter(|(other, _)| **other != own) {
                if force {
                    owned.remove(leaf);
                } else if owned.contains(leaf) {
                    conflicts.push(json!({
                        "reason": "FieldManagerConflict",
                        "message": format!("conflict with \"{}\" using v1", other.0),
                        "field": format!(".{}", leaf.join(".")),
                    }));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let before = self.owners.remove(&own).unwrap_or_default();
        for leaf in before {
            let is_owned = self.owners.values().any(|owned| owned.contains(&leaf));
            if !is_owned && !new_leaves.contains_key(&leaf) {
                self.leaves.remove(&leaf);
            }
        }
        self.owners
            .insert(own, new_leaves.keys().cloned().collect());
        self.owners.retain(|_, owned| !owned.is_empty());
        self.leaves.extend(new_leaves);
        self.time = now();
        Ok(())
    }
}

/// In whole seconds, as the server has it.
fn now() -> String {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0);
    let form = time::format_description::well_known::Rfc3339;
    now.unwrap().format(&form).unwrap()
}

pub(super) fn leaves(object: &Value) -> BTreeMap<Leaf, Value> {
    let mut leaves = BTreeMap::new();
    for path in [
        &["data"][..],
        &["metadata", "labels"],
        &["metadata", "annotations"],
    ] {
        let map = path
            .iter()
            .try_fold(object, |at, key| at.get(key))
            .and_then(Value::as_object);
        for (key, value) in map.into_iter().flatten() {
            let leaf = path
                .iter()
                .map(|part| (*part).to_owned())
                .chain([key.clone()]);
            leaves.insert(leaf.collect(), value.clone());
        }
    }
    if let Some(kind) = object.get("type") {
        leaves.insert(vec!["type".to_owned()], kind.clone());
    }
    leaves
}

fn put(into: &mut Value, path: &[String], value: Value) {
    match path {
        [] => *into = value,
        [first, rest @ ..] => {
            let map = into.as_object_mut().unwrap();
            put(
                map.entry(first.clone()).or_insert_with(|| json!({})),
                rest,
                value,
            );
        }
    }
}

pub(super) fn object(name: &str, stored: &Stored) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "apps",
            "uid": format!("00000000-0000-4000-8000-{:012}", stored.uid),
            "resourceVersion": stored.version.to_string(),
            "creationTimestamp": "2026-11-22T00:00:00Z",
        },
    });
    for (leaf, value) in &stored.leaves {
        put(&mut object, leaf, value.clone());
    }
    let managed = stored.owners.iter().map(|((manager, operation), owned)| {
        let mut fields = json!({});
        for leaf in owned {
            let path: Vec<_> = leaf.iter().map(|part| format!("f:{part}")).collect();
            put(&mut fields, &path, json!({}));
        }
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1",
            "time": stored.time, "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    });
    object["metadata"]["managedFields"] = managed.collect();
    object
}

/// The reverse, of one entry.
fn owner(entry: &Value) -> (Owner, BTreeSet<Leaf>) {
    fn walk(fields: &Map<String, Value>, path: &mut Leaf, owned: &mut BTreeSet<Leaf>) {
        for (key, below) in fields {
            let Some(key) = key.strip_prefix("f:") else {
                continue;
            };
            path.push(key.to_owned());
            let below = below.as_object().unwrap();
            if below.is_empty() {
                owned.insert(path.clone());
            } else {
                walk(below, path, owned);
            }
            path.pop();
        }
    }
    let mut owned = BTreeSet::new();
    walk(
        entry["fieldsV1"].as_object().unwrap(),
        &mut vec![],
        &mut owned,
    );
    let text = |key: &str| entry[key].as_str().unwrap().to_owned();
    ((text("manager"), text("operation")), owned)
}
