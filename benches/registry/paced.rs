//! Requests that come when they are due, whether the server is quick or not: one that hangs holds back those behind it on its
//! connection, and all of them count as late. It must never leave out a request because no answer came.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engines::Server;
use crate::support::client::Client;
use crate::support::values::percentile;

/// How often each connection asks.
const EVERY: Duration = Duration::from_millis(10);
/// How long after the last request an answer may still come.
const GRACE: Duration = Duration::from_secs(2);

/// How requests fared.
pub struct Paced {
    /// Milliseconds from when it was due; of one that was never answered, until the end.
    pub p99: f64,
    pub unanswered: usize,
}

/// Asks for a path on several connections.
pub fn ask(server: &Server, path: &str, connections: u32, seconds: u64) -> Paced {
    let waits = Mutex::new((Vec::new(), 0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..connections {
            let first = start + EVERY * number / connections;
            let last = start + Duration::from_secs(seconds);
            let waits = &waits;
            scope.spawn(move || {
                let (answered, unanswered) = one(server, path, first, last);
                let mut waits = waits.lock().unwrap();
                waits.0.extend(answered);
                waits.1 += unanswered;
            });
        }
    });
    let (waits, unanswered) = waits.into_inner().unwrap();
    Paced { p99: percentile(&waits, 99), unanswered }
}

/// The waits of one connection's requests, in milliseconds, and how many were never answered.
fn one(server: &Server, path: &str, first: Instant, last: Instant) -> (Vec<f64>, usize) {
    let mut client = Client::new(server.address);
    let (mut waits, mut unanswered, mut due) = (Vec::new(), 0, first);
    let end = last + GRACE;
    while due < last {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let answered = if unanswered > 0 {
            // The connection is stuck: whoever comes behind waits as well.
            false
        } else {
            client.wait_at_most(end.saturating_duration_since(Instant::now()));
            client.get(path).is_ok_and(|answer| answer.status == 200)
        };
        let until = if answered { Instant::now() } else { end };
        unanswered += usize::from(!answered);
        waits.push((until - due).as_secs_f64() * 1000.0);
        due += EVERY;
    }
    (waits, unanswered)
}
