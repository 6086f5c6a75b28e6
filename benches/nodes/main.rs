//! Measures what nodes see of Wharf: the agent's endpoint on loopback with a mirror behind it, pods on the real cluster, and what a
//! large cluster costs. `make bench` runs it; an argument names one part: `endpoint`, `pods` or `scale`.
//! It must never assert that anything is fast: it prints what it measured beside the goals, and writes it as JSON.
//!
//! | Left over when this program is killed | Until |
//! |---|---|
//! | `target/bench/nodes/`, namespaces `bench-scale` and `bench-pods`, Mirror `bench`, NodeRuntimes `bench-*`, role `wharf-bench` | the next run |

#![allow(clippy::restriction, reason = "a benchmark ends by panicking")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(missing_docs, reason = "a program")]

mod agents;
mod api;
#[allow(dead_code, reason = "the benchmark of the operator uses more of it")]
#[path = "../operator/audit.rs"]
mod audit;
#[allow(dead_code, reason = "the benchmark of the operator uses more of it")]
#[path = "../operator/cluster.rs"]
mod cluster;
mod endpoint;
mod figures;
mod forward;
mod lab;
mod pods;
#[allow(dead_code, reason = "the benchmark of the operator uses more of it")]
#[path = "../operator/process.rs"]
mod process;
mod scale;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "the benchmark of pull-through uses more of it")]
#[path = "../mirror/upstream.rs"]
mod upstream;
mod world;

use figures::Figures;

fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == part);
    let mut figures = Figures::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if wanted("endpoint") {
        eprintln!("the endpoint");
        endpoint::measure(runtime.handle(), &mut figures);
    }
    if wanted("pods") {
        eprintln!("pods");
        pods::measure(runtime.handle(), &mut figures);
    }
    if wanted("scale") {
        eprintln!("a large cluster");
        runtime.block_on(scale::measure(&mut figures));
    }
    figures.print();
    figures.write();
}
