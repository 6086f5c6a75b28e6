//! A rotation whose operator ends at any write, loses answers, or is not alone: never two next authorities in use, never a
//! signer that is not published, and in the end the same as undisturbed.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::apiserver::{Connection, Fault, Server};
use crate::clients::{DAY, Outside, PROMPT, ask_for_rotation, authority, live, secret_text, step};
use crate::world::{Process, cluster, now, run_until_quiet, set_now};

/// Steps of two days that a rotation takes with prompt nodes, and some more.
const STEPS: usize = 26;

async fn begun() -> Server {
    set_now("2026-06-01T00:00:00Z".parse().unwrap());
    let server = cluster(&json!({"engine": "Distribution"}));
    run_until_quiet(&server, &server.connect()).await;
    ask_for_rotation(&server);
    server
}

/// A rotation in which another process begins where the first one crashed.
async fn rotate(server: &Server) -> Outside {
    let mut outside = Outside::new(PROMPT);
    outside.act(server);
    let mut connection = server.connect();
    let mut process = Process::start(connection.client());
    for _step in 0..STEPS {
        set_now(now() + 2 * DAY);
        if !survives(&process, &connection).await {
            connection = server.connect();
            process = Process::start(connection.client());
            outside.act(server);
            process.round().await;
        }
        outside.act(server);
    }
    outside
}

async fn survives(process: &Process, connection: &Connection) -> bool {
    tokio::select! {
        biased;
        () = connection.crashed() => false,
        _ = process.round() => true,
    }
}

#[tokio::test]
async fn at_each_write_of_a_rotation() {
    let clean = begun().await;
    let before = clean.mutations().len();
    rotate(&clean).await;
    let writes: Vec<String> = clean.mutations()[before..]
        .iter()
        .map(|write| format!("{} {} {}", write.verb, write.resource, write.name))
        .collect();
    let steps = writes.iter().filter(|write| write.contains("wharf-authority")).count();
    assert!(steps >= 5 && writes.len() > 12, "{writes:#?}");
    for (ordinal, write) in writes.iter().enumerate() {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::ApplyThenLose, Fault::Reset] {
            let server = begun().await;
            let first = secret_text(&authority(&server), "tls.crt");
            let (seen, injected) = (AtomicUsize::new(0), fault.clone());
            server.on_request(move |request| {
                let hit = request.is_mutation() && seen.fetch_add(1, Ordering::SeqCst) == ordinal;
                hit.then(|| injected.clone())
            });
            let outside = rotate(&server).await;
            let what = format!("{fault:?} at write {ordinal} ({write})");
            assert_eq!(step(&server), "", "{what}: not at rest");
            assert_ne!(secret_text(&authority(&server), "tls.crt"), first, "{what}: nothing was rotated");
            assert_eq!(outside.ever_published().len(), 2, "{what}: more than one next authority was published");
            assert!(outside.starts["team"] == 1, "{what}: {} restarts", outside.starts["team"]);
        }
    }
    println!("{} writes, {} disturbed rotations", writes.len(), writes.len() * 4);
}

#[tokio::test]
async fn two_operators_at_once() {
    let server = begun().await;
    let (one, two) = (Process::start(server.client()), Process::start(server.client()));
    let mut outside = Outside::new(PROMPT);
    outside.act(&server);
    for _step in 0..STEPS {
        set_now(now() + 2 * DAY);
        // Each request of one may come between any two of the other.
        tokio::join!(one.round(), two.round());
        outside.act(&server);
    }
    assert_eq!(step(&server), "");
    assert_eq!(outside.ever_published().len(), 2);
}

/// An operator that read the Secret before the other one changed it takes no step on what it read.
#[tokio::test]
async fn a_step_on_an_old_reading_is_refused() {
    let server = begun().await;
    let rival = server.clone();
    let steps = AtomicUsize::new(0);
    server.on_request(move |request| {
        if request.name == "wharf-authority" && request.verb == "patch" && steps.fetch_add(1, Ordering::SeqCst) == 0 {
            rival.set("Secret", "wharf-system", "wharf-authority", |secret| {
                secret["metadata"]["annotations"] = json!({"changed": "meanwhile"});
            });
        }
        None
    });
    let (process, mut outside) = (Process::start(server.client()), Outside::new(PROMPT));
    live(&server, &process, &mut outside, DAY).await;
    assert_eq!(step(&server), "", "the request was taken back meanwhile");
    assert!(authority(&server)["data"]["next.crt"].is_null());
}

/// The first operator made the authority while the second one was about to.
#[tokio::test]
async fn of_two_first_authorities_one_stands() {
    let server = cluster(&json!({}));
    let (one, two) = (Process::start(server.client()), Process::start(server.client()));
    let mut outside = Outside::new(PROMPT);
    for _round in 0..4 {
        tokio::join!(one.round(), two.round());
        outside.act(&server);
    }
    assert_eq!(outside.ever_published().len(), 1);
}
