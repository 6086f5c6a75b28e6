//! What is told of a Registry that is exposed.

mod gateway;

use serde_json::json;

use super::*;

/// A Registry with an Ingress, a load balancer and both proven.
fn exposed(case: &mut Case) {
    let expose = "{ingress: {host: images.example.com}, service: {type: LoadBalancer}}";
    case.registry.spec.expose = Some(serde_saphyr::from_str(expose).unwrap());
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    case.observed.exposure.ingress = Found::Ours(serde_json::from_value(json!({})).unwrap());
    case.observed.exposure.service = Found::Ours(serde_json::from_value(address).unwrap());
    case.observed.exposure.class = IngressClassFact::Controller("example.com/controller".into());
    case.observed.exposure.verdicts = vec![(Way::Ingress, Verdict::proven()), (Way::Service, Verdict::proven())];
}

fn verdict(reason: &'static str) -> Verdict {
    Verdict { reason, message: "what came back".into() }
}

fn exposed_finding(status: &RegistryStatus) -> String {
    let found = condition::find(&status.conditions, condition::EXPOSED).expect("there is a condition");
    format!("{}/{}: {}", found.status, found.reason, found.message)
}

#[test]
fn exposed_is_true_only_when_an_upload_went_through_each_front() {
    let status = after(exposed);
    assert_eq!(
        exposed_finding(&status),
        "True/Proven: images.example.com (Ingress): an upload of 2 MiB went through; 192.0.2.1 (Service): an upload of 2 MiB \
         went through"
    );
    assert_eq!(status.external_addresses, ["images.example.com", "192.0.2.1"]);
    assert_eq!(condition::find(&after(|_| {}).conditions, condition::EXPOSED), None);
}

#[test]
fn each_trouble_outside_has_its_reason_and_leaves_the_registry_ready() {
    type Spoil = Box<dyn FnOnce(&mut Case)>;
    let judge = |reason: &'static str| -> Spoil {
        Box::new(move |case: &mut Case| case.observed.exposure.verdicts[0].1 = verdict(reason))
    };
    let cases: Vec<(Spoil, &str, &str)> = vec![
        (judge(reason::NOT_ROUTED), "False/NotRouted", "images.example.com (Ingress): what came back"),
        (judge(reason::UPLOAD_REFUSED), "False/UploadRefused", "what came back"),
        (Box::new(|case| case.observed.exposure.verdicts.clear()), "Unknown/Progressing", "about to be tried"),
        (Box::new(|case| case.observed.exposure.ingress = Found::Absent), "Unknown/Progressing", "being made"),
        (Box::new(|case| case.observed.exposure.ingress = Found::Foreign("x".into())), "False/NameTaken", "Ingress"),
        (Box::new(|case| case.observed.exposure.authority = Found::Foreign("x".into())), "False/NameTaken", "Secret"),
        (Box::new(|case| case.observed.exposure.service = Found::Foreign("x".into())), "False/NameTaken", "Service"),
        (
            Box::new(|case| case.observed.exposure.host_taken_by = Some("Ingress shop/web".into())),
            "False/HostTaken",
            "Ingress shop/web",
        ),
        (
            Box::new(|case| {
                case.observed.exposure.class = IngressClassFact::NoDefault(vec!["nginx".into()]);
                case.observed.exposure.verdicts[0].1 = verdict(reason::ADDRESS_PENDING);
            }),
            "False/IngressClassMissing",
            "existing classes: nginx",
        ),
        (
            Box::new(|case| {
                case.observed.exposure.class = IngressClassFact::Missing(Vec::new());
                case.observed.exposure.verdicts.remove(0);
            }),
            "False/IngressClassMissing",
            "there is none",
        ),
        (
            Box::new(|case| case.observed.exposure.service = Found::Ours(serde_json::from_value(json!({})).unwrap())),
            "False/AddressPending",
            "team-external",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("Ingress", "team-registry", 403)]),
            "False/Refused",
            "the reason the API server gave",
        ),
        (
            Box::new(|case| case.failures = vec![api_failure("Service", "team-external", 500)]),
            "False/Retrying",
            "team-external",
        ),
    ];
    for (spoil, expected, words) in cases {
        let status = after(|case| {
            exposed(case);
            spoil(case);
        });
        let found = exposed_finding(&status);
        assert!(found.starts_with(expected) && found.contains(words), "{expected}: {found}");
        assert!(brief(&status).starts_with("Ready=True"), "{expected}: {}", brief(&status));
    }
}

#[test]
fn nothing_is_tried_while_the_volume_is_full() {
    let status = after(|case| {
        exposed(case);
        case.observed.exposure.verdicts.clear();
        case.observed.volume = Some(VolumeUse { used_percent: 95, level: Level::Full });
    });
    let found = exposed_finding(&status);
    assert!(found.starts_with("Unknown/Progressing") && found.contains("the volume is full"), "{found}");
}

#[test]
fn a_class_that_is_missing_is_no_trouble_while_uploads_go_through() {
    let status = after(|case| {
        exposed(case);
        case.observed.exposure.class = IngressClassFact::NoDefault(Vec::new());
    });
    assert!(exposed_finding(&status).starts_with("True/Proven"));
}

#[test]
fn a_restart_keeps_the_word_of_the_last_proof_until_something_else_is_asked_for() {
    let proven = after(exposed);
    let after_restart = |change: fn(&mut Case)| {
        let old = proven.clone();
        after(|case| {
            exposed(case);
            case.observed.exposure.verdicts.clear();
            case.registry.status = Some(old);
            change(case);
        })
    };
    assert_eq!(after_restart(|_| {}).conditions, proven.conditions);
    let other = after_restart(|case| case.registry.metadata.generation = Some(2));
    assert!(exposed_finding(&other).starts_with("Unknown/Progressing"));
    let stopped = after_restart(|case| case.observed.deployment = Found::Ours(deployment(0)));
    assert!(exposed_finding(&stopped).starts_with("False/Progressing"));
    let suspended = after_restart(|case| case.registry.spec.suspend = true);
    assert!(exposed_finding(&suspended).starts_with("False/Suspended"));
}
