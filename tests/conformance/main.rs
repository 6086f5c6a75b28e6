//! C10: the API server of the other suites against the real one, on random sequences of requests. Both are asked the same,
//! and what they answer is compared: codes, reasons, objects and who owns which field. Identities, versions, times, addresses
//! and the wording of messages are left out. A real kube-apiserver and etcd run alone, without any controller, so that only
//! requests change objects.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod real;
mod requests;
mod side;

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use apiserver::Server;
use side::Side;

/// How many requests a sequence has.
const LENGTH: usize = 40;

fn seeds() -> Vec<u64> {
    match std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..if std::env::var_os("WHARF_TEST_LONG").is_some() { 500 } else { 30 }).collect(),
    }
}

/// Where two answers differ.
fn differences(path: &str, real: &Value, ours: &Value) -> Vec<String> {
    match (real, ours) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names
                .into_iter()
                .flat_map(|name| differences(&format!("{path}/{name}"), &real[name], &ours[name]))
                .collect()
        }
        _ if real == ours => Vec::new(),
        _ => vec![format!("{path}: {real}, {ours}")],
    }
}

#[tokio::test]
#[ignore = "needs cluster: the programs kube-apiserver and etcd"]
async fn c10_both_answer_the_same() {
    let (real, fake) = (real::start().await, Server::new());
    let (mut requests, mut refusals, mut disagreements) = (0, 0, Vec::new());
    for seed in seeds() {
        let namespace = format!("seed-{seed}");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        fake.add(&object);
        let mut sides = [Side::new(real.client.clone()), Side::new(fake.client())];
        sides[0].send("POST", "/api/v1/namespaces", "application/json", &object).await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut past = Vec::new();
        for number in 0..LENGTH {
            let request = requests::next(&mut random, &namespace);
            past.push(request.to_string());
            let mut answers = Vec::new();
            for side in &mut sides {
                answers.push(side.ask(&request).await);
            }
            if answers[0] != answers[1] {
                disagreements.push(format!(
                    "WHARF_TEST_SEED={seed}, request {number}: {request}\n(path: the real one, ours)\n{}\nbefore:\n{}",
                    differences("", &answers[0], &answers[1]).join("\n"),
                    past.join("\n")
                ));
                break;
            }
            requests += 1;
            refusals += usize::from(answers[0]["code"].as_u64().is_some_and(|code| code >= 400));
        }
    }
    let first: Vec<&String> = disagreements.iter().take(5).collect();
    assert!(
        first.is_empty(),
        "{} disagreements, the first:\n{}",
        disagreements.len(),
        first.iter().map(|text| text.as_str()).collect::<Vec<_>>().join("\n\n")
    );
    assert!(refusals > requests / 20 && refusals < requests / 2, "{refusals} of {requests} were refused");
    println!("{requests} requests, {refusals} refused by both");
}
