//! Which part of the plan is for this node. Pure.

use std::collections::BTreeMap;

use kube::core::{Selector, SelectorExt as _};

use crate::plan::{Entry, Plan};

/// Whether an entry is for a node with these labels. One whose selector cannot be read is for none.
#[must_use]
pub fn is_for(entry: &Entry, labels: &BTreeMap<String, String>) -> bool {
    match entry.nodes.clone().map(Selector::try_from) {
        None => true,
        Some(Ok(selector)) => selector.matches(labels),
        Some(Err(_)) => false,
    }
}

/// The plan as it concerns a node with these labels.
#[must_use]
pub fn for_node(plan: &Plan, labels: &BTreeMap<String, String>) -> Plan {
    let hosts = plan.hosts.iter().filter(|(_, entry)| is_for(entry, labels));
    Plan { hosts: hosts.map(|(host, entry)| (host.clone(), entry.clone())).collect(), ..plan.clone() }
}

/// The plan, and those hosts of an earlier one that are no longer in it: files may still lead to them.
#[must_use]
pub fn with_leaving(plan: &Plan, earlier: &Plan) -> Plan {
    let mut hosts = earlier.hosts.clone();
    hosts.extend(plan.hosts.clone());
    Plan { hosts, ..plan.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Owner, OwnerKind};

    fn entry(nodes: Option<serde_json::Value>) -> Entry {
        let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "m".into(), uid: "u".into() };
        let nodes = nodes.map(|nodes| serde_json::from_value(nodes).unwrap());
        Entry { backends: vec!["https://10.0.0.1".into()], owner, nodes, since: 1 }
    }

    #[test]
    fn an_entry_is_for_the_nodes_that_its_selector_chooses() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        for (nodes, expected) in [
            (None, true),
            (Some(json!({})), true),
            (Some(json!({"matchLabels": {"zone": "a"}})), true),
            (Some(json!({"matchLabels": {"zone": "b"}})), false),
            (Some(json!({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]})), true),
            (Some(json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b", "c"]}]})), false),
            (Some(json!({"matchExpressions": [{"key": "zone", "operator": "Like", "values": ["a"]}]})), false),
        ] {
            assert_eq!(is_for(&entry(nodes.clone()), &labels), expected, "{nodes:?}");
        }
    }

    #[test]
    fn hosts_that_leave_are_kept_beside_those_that_stay_as_they_are_now() {
        let (old, mut new) = (entry(None), entry(None));
        new.since = 2;
        let plan = |hosts: &[(&str, &Entry)]| Plan {
            hosts: hosts.iter().map(|(host, entry)| ((*host).to_owned(), (*entry).clone())).collect(),
            ..Plan::default()
        };
        let both = with_leaving(&plan(&[("stays", &new)]), &plan(&[("stays", &old), ("leaves", &old)]));
        assert_eq!(both, plan(&[("stays", &new), ("leaves", &old)]));
    }
}
