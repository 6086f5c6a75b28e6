//! Ten years and more, day by day while something moves.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::apiserver::Server;
use crate::clients::{DAY, Habits, Outside, PROMPT, authority, live, secret_text, step};
use crate::world::{Process, add_named_registry, cluster, now, run_until_quiet, set_now};

/// A client that reads what is published every thirteen days, a node and a pod that are days late: every client gets an answer through eleven years.
#[tokio::test]
async fn every_client_gets_an_answer_for_eleven_years() {
    let server = cluster(&json!({"engine": "Wharf"}));
    add_named_registry(&server, "other", &json!({"engine": "Distribution"}));
    run_until_quiet(&server, &server.connect()).await;
    let habits = Habits { reads_every: 13 * DAY, node_late: 3 * DAY, pod_late: 5 * DAY };
    let (process, mut outside) = (Process::start(server.client()), Outside::new(habits));
    let first = secret_text(&authority(&server), "tls.crt");
    let mut steps = BTreeSet::new();
    let end = now() + 11 * 365 * DAY;
    while now() < end {
        // A certificate on its way to a late pod is looked at every day, too.
        let pace = if step(&server).is_empty() && !outside.is_moving() { 4 * DAY } else { DAY };
        live(&server, &process, &mut outside, pace).await;
        steps.insert(step(&server));
    }
    let all = ["", "Overlapping", "Publishing", "Reissuing", "Retiring"].map(str::to_owned);
    assert_eq!(steps, BTreeSet::from(all), "a whole rotation happened");
    assert_ne!(secret_text(&authority(&server), "tls.crt"), first);
    assert_eq!(outside.ever_published().len(), 2, "one rotation in eleven years");
    // A leaf lasts at least eight months: two thirds of its year.
    assert!((11..=17).contains(&outside.starts["other"]), "pods started: {:?}", outside.starts);
    assert_eq!(outside.starts.get("team"), None, "its engine takes a certificate up without a restart");
}

/// The cluster was switched off; what had ended meanwhile heals in the first passes.
#[tokio::test]
async fn a_cluster_that_slept_heals_by_itself() {
    for (years, authorities) in [(1, 1), (2, 1), (9, 2), (12, 2), (30, 2)] {
        let server = cluster(&json!({}));
        set_now("2026-06-01T00:00:00Z".parse().unwrap());
        run_until_quiet(&server, &server.connect()).await;
        let before = authority(&server);
        set_now(now() + years * 366 * DAY);
        run_until_quiet(&server, &server.connect()).await;
        let mut outside = Outside::new(Habits { reads_every: Duration::ZERO, ..PROMPT });
        outside.act(&server);
        let replaced = secret_text(&before, "tls.crt") != secret_text(&authority(&server), "tls.crt");
        assert_eq!(replaced, years >= 10, "{years} years");
        assert!(outside.ever_published().len() <= authorities, "{years} years");
        let registry = server.get("Registry", "platform", "team").unwrap();
        assert_eq!(registry["status"]["conditions"][0]["status"], "True", "{years} years");
    }
}

/// It slept in the middle of a rotation, at every step of it.
#[tokio::test]
async fn a_cluster_that_slept_during_a_rotation_heals_by_itself() {
    for asleep_in in ["Publishing", "Overlapping", "Reissuing", "Retiring"] {
        for years in [1, 3, 11] {
            let server = rotating_until(asleep_in).await;
            set_now(now() + years * 366 * DAY);
            run_until_quiet(&server, &server.connect()).await;
            Outside::new(Habits { reads_every: Duration::ZERO, ..PROMPT }).act(&server);
            let (process, mut outside) = (Process::start(server.client()), Outside::new(PROMPT));
            for _day in 0..50 {
                live(&server, &process, &mut outside, DAY).await;
            }
            assert_eq!(step(&server), "", "asleep in {asleep_in} for {years} years");
        }
    }
}

/// A cluster whose rotation has come to a step.
async fn rotating_until(wanted: &str) -> Server {
    let server = cluster(&json!({}));
    set_now("2026-06-01T00:00:00Z".parse().unwrap());
    run_until_quiet(&server, &server.connect()).await;
    crate::clients::ask_for_rotation(&server);
    let habits = Habits { node_late: 2 * DAY, ..PROMPT };
    let (process, mut outside) = (Process::start(server.client()), Outside::new(habits));
    for _day in 0..60 {
        live(&server, &process, &mut outside, DAY).await;
        if step(&server) == wanted {
            return server;
        }
    }
    panic!("the rotation never came to {wanted}");
}
