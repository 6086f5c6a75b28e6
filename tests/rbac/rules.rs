//! The rules of `deploy/wharf.yaml`: who has them, and what they allow. Rendered rules are read, not the charts, so that
//! what is compared is what is installed. It must never allow what Kubernetes' own authorizer would not.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_json::Value;

/// A request of one of Wharf's accounts, as roles see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `wharf-operator`, `wharf-agent`, `wharf-mirror` or [`HOOK_ACCOUNT`].
    pub account: String,
    pub verb: String,
    pub group: String,
    /// With its part, such as `registries/status`.
    pub resource: String,
    /// Empty for what is cluster-scoped, and for lists over all namespaces.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, verb, group, resource, namespace, name } = self;
        write!(formatter, "{account}: {verb} {}", full_name(resource, group))?;
        write!(formatter, "{}{name} in {namespace:?}", if name.is_empty() { "" } else { " " })
    }
}

fn full_name(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// The smallest part of a rule: one verb on one resource, or on one object of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub account: String,
    pub verb: String,
    pub group: String,
    pub resource: String,
    /// `None` for all namespaces and for what is in none.
    pub namespace: Option<String>,
    /// `None` for all objects.
    pub name: Option<String>,
}

impl Right {
    pub fn allows(&self, request: &Request) -> bool {
        self.account == request.account
            && self.verb == request.verb
            && self.group == request.group
            && self.resource == request.resource
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == request.namespace)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, verb, group, resource, namespace, name } = self;
        write!(formatter, "{account}: {verb} {}", full_name(resource, group))?;
        name.iter().try_for_each(|name| write!(formatter, " {name}"))?;
        namespace.iter().try_for_each(|namespace| write!(formatter, " in {namespace}"))
    }
}

/// The account of Helm's hook before an uninstallation.
pub const HOOK_ACCOUNT: &str = "wharf-uninstall";

/// The rights of the hook, which is not rendered: without Helm nothing would run it at the right time.
pub fn of_the_hook() -> BTreeSet<Right> {
    let right = |verb: &str| Right {
        account: HOOK_ACCOUNT.to_owned(),
        verb: verb.to_owned(),
        group: "wharf.dev".to_owned(),
        resource: "mirrors".to_owned(),
        namespace: None,
        name: None,
    };
    BTreeSet::from([right("list"), right("delete")])
}

/// Every right that the rendered rules give to Wharf's accounts.
pub fn rendered() -> BTreeSet<Right> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/wharf.yaml");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut rights = BTreeSet::new();
    for (binding_kind, role_kind) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
        for binding in of_kind(binding_kind) {
            let namespace = binding["metadata"]["namespace"].as_str();
            assert_eq!(binding["roleRef"]["kind"], role_kind, "a binding of another kind of role is not expected");
            let role = of_kind(role_kind)
                .find(|role| {
                    role["metadata"]["name"] == binding["roleRef"]["name"]
                        && role["metadata"]["namespace"].as_str() == namespace
                })
                .unwrap_or_else(|| panic!("a binding names a role that is not there: {binding}"));
            for subject in binding["subjects"].as_array().unwrap() {
                for rule in role["rules"].as_array().unwrap() {
                    rights.extend(rights_of(rule, subject["name"].as_str().unwrap(), namespace));
                }
            }
        }
    }
    rights
}

fn rights_of(rule: &Value, account: &str, namespace: Option<&str>) -> Vec<Right> {
    let texts = |field: &str| -> Vec<String> {
        let list = rule[field].as_array().cloned().unwrap_or_default();
        list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut names: Vec<Option<String>> = texts("resourceNames").into_iter().map(Some).collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut rights = Vec::new();
    for (group, resource, verb) in texts("apiGroups").into_iter().flat_map(|group| {
        let verbs = texts("verbs");
        texts("resources").into_iter().flat_map(move |resource| {
            let group = group.clone();
            verbs.clone().into_iter().map(move |verb| (group.clone(), resource.clone(), verb))
        })
    }) {
        assert!(verb != "*" && resource != "*" && group != "*", "a rule lists exactly what it allows: {rule}");
        for name in &names {
            rights.push(Right {
                account: account.to_owned(),
                verb: verb.clone(),
                group: group.clone(),
                resource: resource.clone(),
                namespace: namespace.map(str::to_owned),
                name: name.clone(),
            });
        }
    }
    rights
}

/// The requests that no right allows, each once.
pub fn without_right<'a>(
    requests: impl IntoIterator<Item = &'a Request>,
    rights: &BTreeSet<Right>,
) -> BTreeSet<String> {
    requests
        .into_iter()
        .filter(|request| !rights.iter().any(|right| right.allows(request)))
        .map(Request::to_string)
        .collect()
}

/// The rights that no request needed.
pub fn without_request<'a>(
    requests: impl IntoIterator<Item = &'a Request>,
    rights: &BTreeSet<Right>,
) -> BTreeSet<String> {
    let requests: Vec<&Request> = requests.into_iter().collect();
    rights.iter().filter(|right| !requests.iter().any(|request| right.allows(request))).map(Right::to_string).collect()
}
