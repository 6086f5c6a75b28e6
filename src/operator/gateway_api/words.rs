//! What controllers say of Wharf's routes and policies. Pure.
//! It must never take a word on an older spec, or on a Gateway that is not asked, for one on what is there now.

use kube::ResourceExt;

use super::{AncestorStatus, BackendTlsPolicy, HttpRoute, Parent, ParentStatus, Word};

/// How much of a controller's message is repeated.
const REPEATED: usize = 300;

/// The Gateways of a route whose controllers took it, as it is now. Of a Gateway that did not take it, nothing is asked.
#[must_use]
pub fn accepted(route: &HttpRoute) -> Vec<&Parent> {
    let parents = route.status.iter().flat_map(|status| &status.parents);
    let takes = |parent: &&ParentStatus| {
        let mut words = parent.conditions.iter().filter(|word| is_current(word, route.metadata.generation));
        words.any(|word| word.kind == "Accepted" && word.status == "True") && is_asked(route, &parent.parent_ref)
    };
    parents.filter(takes).map(|parent| &parent.parent_ref).collect()
}

/// What controllers have against a route.
#[must_use]
pub fn objections_to_route(route: &HttpRoute) -> Vec<String> {
    let name = format!("HTTPRoute {}", route.name_any());
    let parents = route.status.iter().flat_map(|status| &status.parents);
    let of = |parent: &ParentStatus| {
        let ParentStatus { parent_ref, controller_name, conditions } = parent;
        objections(&name, parent_ref, controller_name, conditions, route.metadata.generation)
    };
    parents.filter(|parent| is_asked(route, &parent.parent_ref)).flat_map(of).collect()
}

/// Whether a route names a Gateway. Some controllers write out the namespace that the route left to be its own.
fn is_asked(route: &HttpRoute, parent: &Parent) -> bool {
    let whole = |parent: &Parent| Parent {
        namespace: parent.namespace.clone().or_else(|| route.namespace()),
        ..parent.clone()
    };
    route.spec.parent_refs.iter().any(|asked| whole(asked) == whole(parent))
}

/// What controllers have against a policy.
#[must_use]
pub fn objections_to_policy(policy: &BackendTlsPolicy) -> Vec<String> {
    let name = format!("BackendTLSPolicy {}", policy.name_any());
    let ancestors = policy.status.iter().flat_map(|status| &status.ancestors);
    let of = |ancestor: &AncestorStatus| {
        let AncestorStatus { ancestor_ref, controller_name, conditions } = ancestor;
        objections(&name, ancestor_ref, controller_name, conditions, policy.metadata.generation)
    };
    ancestors.flat_map(of).collect()
}

/// Both kinds have the same two conditions, which are true when all is well.
fn objections(name: &str, parent: &Parent, controller: &str, words: &[Word], generation: Option<i64>) -> Vec<String> {
    let is_objection = |word: &&Word| {
        matches!(word.kind.as_str(), "Accepted" | "ResolvedRefs")
            && word.status == "False"
            && is_current(word, generation)
    };
    let said = |word: &Word| {
        let message: String = word.message.chars().filter(|character| !character.is_control()).take(REPEATED).collect();
        format!("{controller} says of {name} at {parent}: {} is False, {}: {message}", word.kind, word.reason)
    };
    words.iter().filter(is_objection).map(said).collect()
}

/// What was said of an older spec is no word on this one.
fn is_current(word: &Word, generation: Option<i64>) -> bool {
    word.observed_generation.is_none_or(|observed| Some(observed) >= generation)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::GROUP;
    use super::*;

    fn parent(name: &str) -> Value {
        json!({"group": GROUP, "kind": "Gateway", "namespace": "infra", "name": name})
    }

    fn route(parents: &Value) -> HttpRoute {
        serde_json::from_value(json!({
            "metadata": {"name": "team-registry", "generation": 2},
            "spec": {"parentRefs": [parent("a"), parent("b")], "rules": [{"timeouts": {"request": "1s"}}]},
            "status": {"parents": parents},
        }))
        .unwrap()
    }

    fn said(by: &str, kind: &str, status: &str, generation: i64) -> Value {
        let word = json!({"type": kind, "status": status, "reason": "Because", "message": "of\nthis", "observedGeneration": generation});
        json!({"parentRef": parent(by), "controllerName": "example.com/one", "conditions": [word, {"type": "Other"}]})
    }

    #[test]
    fn only_a_word_on_the_route_as_it_is_now_counts() {
        let of = |parents: &[Value]| {
            let route = route(&json!(parents));
            let names: Vec<String> = accepted(&route).iter().map(|parent| parent.name.clone()).collect();
            (names.join(","), objections_to_route(&route).join("; "))
        };
        let own: HttpRoute = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "infra"}, "spec": {"parentRefs": [{"group": GROUP, "kind": "Gateway", "name": "a"}]},
            "status": {"parents": [said("a", "Accepted", "True", 1)]},
        }))
        .unwrap();
        assert_eq!(of(&[]), (String::new(), String::new()));
        assert_eq!(of(&[said("a", "Accepted", "True", 2), said("b", "Accepted", "Unknown", 2)]).0, "a");
        assert_eq!(of(&[said("a", "Accepted", "True", 1), said("b", "Accepted", "False", 1)]), of(&[]));
        // A namespace that the route left to be its own may be written out.
        assert_eq!(accepted(&own).len(), 1);
        // Of a Gateway that the route does not name, or not any more.
        assert_eq!(of(&[said("c", "Accepted", "True", 2), said("c", "Accepted", "False", 2)]), of(&[]));
        let (_, objections) = of(&[said("a", "ResolvedRefs", "False", 2), said("b", "Programmed", "False", 2)]);
        let expected = "example.com/one says of HTTPRoute team-registry at Gateway infra/a: ResolvedRefs is False, \
                        Because: ofthis";
        assert_eq!(objections, expected);
    }

    #[test]
    fn a_policy_is_objected_to_like_a_route() {
        let word = json!({"type": "Accepted", "status": "False", "reason": "Conflicted", "message": "older one"});
        let policy: BackendTlsPolicy = serde_json::from_value(json!({
            "metadata": {"name": "team-registry", "generation": 1},
            "spec": {},
            "status": {"ancestors": [{"ancestorRef": {"kind": "Gateway", "name": "a", "sectionName": "https"},
                "controllerName": "example.com/one", "conditions": [word]}]},
        }))
        .unwrap();
        let expected = "example.com/one says of BackendTLSPolicy team-registry at Gateway a (listener https): Accepted is \
                        False, Conflicted: older one";
        assert_eq!(objections_to_policy(&policy), [expected]);
    }
}
