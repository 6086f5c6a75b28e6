//! The rendered RBAC rules against the requests that Wharf makes, both ways: each request has a right, and each right was
//! needed by a request. The in-process API server has the operator's requests under all its suites' circumstances; the real
//! cluster's audit log has every request of operator and agents while the end-to-end tests ran.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod audit;
mod in_process;
mod rules;
#[allow(dead_code, unused_imports, reason = "other suites use more of it")]
#[path = "../support/world/mod.rs"]
mod world;

use std::collections::BTreeSet;

use rules::{of_the_hook, rendered, without_request, without_right};

/// Rights that no test can make use of, and why they are needed all the same.
const NOT_TRIED: [(&str, &str); 1] = [(
    "wharf-operator: delete statefulsets.apps",
    "a Mirror's claims have grown, which no class of the test cluster lets them; the in-process API server has it",
)];

#[test]
#[ignore = "needs cluster, after all of its tests"]
fn every_request_has_a_right_and_every_right_a_request() {
    let log = audit::read();
    let rights = rendered();
    let with_the_hook = rights.iter().cloned().chain(of_the_hook()).collect();
    // What a rule allows is refused while an uninstallation has taken the rules away and the pods still end.
    let refused = without_right(&log.refused, &with_the_hook);
    assert!(refused.is_empty(), "Wharf asked for what it has no right to: {refused:#?}");
    let unexpected = without_right(&log.requests, &with_the_hook);
    assert!(unexpected.is_empty(), "allowed by something else than Wharf's rendered rules: {unexpected:#?}");
    let mut accounts: BTreeSet<&str> = log.requests.iter().map(|request| request.account.as_str()).collect();
    // It asks only where one of the tests uninstalled Wharf.
    accounts.remove(rules::HOOK_ACCOUNT);
    assert_eq!(
        accounts,
        BTreeSet::from(["wharf-agent", "wharf-mirror", "wharf-operator"]),
        "who asked for something while the tests ran"
    );
    let mut unused = without_request(log.requests.union(&log.earlier), &rights);
    for (right, reason) in NOT_TRIED {
        assert!(unused.remove(right), "{right} is used after all, so it needs no excuse ({reason})");
    }
    assert!(unused.is_empty(), "no test needed these rights; take them away, or say in NOT_TRIED why not: {unused:#?}");
}
