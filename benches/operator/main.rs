//! Measures the operator and the agent on the real test cluster, as an administrator would see them. `make bench` runs it.
//! It must never assert that anything is fast: it prints what it measured beside the goals, and writes it as JSON.
//!
//! Requests are counted from the API server's audit log, which has every request of Wharf's accounts; the operator's own
//! metrics count only those inside passes. Memory and processor time come from `/proc`.

#![allow(clippy::restriction, reason = "a benchmark ends by panicking")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(missing_docs, reason = "a program")]

mod audit;
mod cluster;
mod figures;
mod process;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use audit::{Mark, Request, summary};
use cluster::{Cluster, condition, together, until};
use figures::Figures;
use support::setting;

/// How many Registries with pods are made one after another, and at once.
const FEW: usize = 20;
/// How many made-up nodes report.
const NODES: usize = 100;
/// How long a process is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let (runs, many) = (setting("WHARF_BENCH_RUNS", 1), setting("WHARF_BENCH_MANY", 200));
    let suspended = std::env::var_os("WHARF_BENCH_PODS").is_none();
    let bench = Bench { cluster: Cluster::connect().await, many, suspended };
    let mut figures = Figures::new(many, suspended);
    for run in 1..=runs {
        eprintln!("run {run} of {runs}");
        bench.clean().await;
        bench.idle(&mut figures).await;
        bench.one_by_one(&mut figures).await;
        bench.at_once(&mut figures).await;
        bench.at_scale(&mut figures).await;
        bench.clean().await;
    }
    figures.print();
    figures.write();
}

struct Bench {
    cluster: Cluster,
    many: usize,
    suspended: bool,
}

impl Bench {
    async fn clean(&self) {
        self.cluster.remove_reports().await;
        for namespace in ["bench-one", "bench-all", "bench-many"] {
            self.cluster.remove_namespace(namespace).await;
        }
        rest(Duration::from_secs(5)).await;
    }

    async fn idle(&self, figures: &mut Figures) {
        eprintln!("  idle");
        let operator = self.cluster.restart_operator().await;
        self.cluster.restart_agents().await;
        tokio::time::sleep(SETTLE).await;
        figures.memory("operator_idle", operator.memory());
        for memory in self.cluster.memory_of_agents().await {
            figures.memory("agent_idle", memory);
        }
    }

    async fn one_by_one(&self, figures: &mut Figures) {
        eprintln!("  {FEW} Registries, one after another");
        let namespace = "bench-one";
        self.cluster.make_namespace(namespace).await;
        let mark = Mark::now();
        for number in 0..FEW {
            let name = format!("registry-{number}");
            let (ready, nodes) = self.make_one(namespace, &name).await;
            figures.add("ready_one_by_one", ready);
            figures.add("nodes_one_by_one", nodes);
        }
        rest(Duration::from_secs(5)).await;
        count_convergence(figures, "one_by_one", &mark.requests(), FEW);
        self.passes_at_rest(namespace, figures).await;
        self.cluster.remove_namespace(namespace).await;
        rest(Duration::from_secs(5)).await;
    }

    /// Seconds until it is ready, and until every node can pull.
    async fn make_one(&self, namespace: &str, name: &str) -> (f64, f64) {
        let started = Instant::now();
        let made = self.cluster.make_registry(namespace, name, false);
        let named = |registry: &wharf::api::Registry| registry.metadata.name.as_deref() == Some(name);
        let ready =
            self.cluster.reached(namespace, 1, |registry| named(registry) && is(registry, "Ready", "True/Ready"));
        let nodes = self
            .cluster
            .reached(namespace, 1, |registry| named(registry) && is(registry, "NodesConfigured", "True/AllNodes"));
        let ((), ready, nodes) = tokio::join!(made, ready, nodes);
        (since(started, ready[name]), since(started, nodes[name]))
    }

    /// What a pass asks of the API server once all is as wanted.
    async fn passes_at_rest(&self, namespace: &str, figures: &mut Figures) {
        let operator = self.cluster.operator().await;
        let (before, mark) = (operator.passes(), Mark::now());
        for number in 0..FEW {
            self.cluster.touch(namespace, &format!("registry-{number}"), &Timestamp::now().to_string()).await;
        }
        until("every touched Registry had its pass", async || operator.passes() >= before + FEW as u64).await;
        rest(Duration::from_secs(3)).await;
        let requests = of("operator", &mark.requests());
        let passes = (operator.passes() - before) as f64;
        figures.add("pass_writes", count(&requests, Request::is_write) / passes);
        figures.add("pass_reads", count(&requests, Request::is_read) / passes);
    }

    async fn at_once(&self, figures: &mut Figures) {
        eprintln!("  {FEW} Registries at once");
        let namespace = "bench-all";
        self.cluster.make_namespace(namespace).await;
        let (started, mark) = (Instant::now(), Mark::now());
        let names: Vec<String> = (0..FEW).map(|number| format!("registry-{number}")).collect();
        let made = together(names.iter().map(|name| self.cluster.make_registry(namespace, name, false)));
        let reached = self.cluster.reached(namespace, FEW, |registry| is(registry, "Ready", "True/Ready"));
        let ((), reached) = tokio::join!(made, reached);
        for at in reached.into_values() {
            figures.add("ready_at_once", since(started, at));
        }
        rest(Duration::from_secs(5)).await;
        count_convergence(figures, "at_once", &mark.requests(), FEW);
        for memory in self.cluster.memory_of_agents().await {
            figures.memory("agent_few", memory);
        }
        self.cluster.remove_namespace(namespace).await;
        rest(Duration::from_secs(5)).await;
    }

    async fn at_scale(&self, figures: &mut Figures) {
        let (namespace, many) = ("bench-many", self.many);
        eprintln!("  {many} Registries");
        self.cluster.make_namespace(namespace).await;
        let (started, mark) = (Instant::now(), Mark::now());
        let before = self.cluster.operator().await.processor();
        for first in (0..many).step_by(20) {
            let numbers = first..many.min(first + 20);
            let names: Vec<String> = numbers.map(|number| format!("registry-{number}")).collect();
            together(names.iter().map(|name| self.cluster.make_registry(namespace, name, self.suspended))).await;
        }
        let ready = if self.suspended { "False/Suspended" } else { "True/Ready" };
        let done = |registry: &wharf::api::Registry| {
            is(registry, "Ready", ready) && is(registry, "NodesConfigured", "True/AllNodes")
        };
        let reached = self.cluster.reached(namespace, many, done).await;
        figures.add("many_converged", reached.into_values().map(|at| since(started, at)).fold(0.0, f64::max));
        rest(Duration::from_secs(5)).await;
        count_convergence(figures, "many", &mark.requests(), many);
        let operator = self.cluster.operator().await;
        figures.add("many_processor", operator.processor() - before);
        figures.memory("operator_many_grown", operator.memory());
        for memory in self.cluster.memory_of_agents().await {
            figures.memory("agent_many_grown", memory);
        }
        self.start(figures).await;
        self.cluster.restart_agents().await;
        self.minute_at_rest(figures).await;
        self.reports(figures).await;
    }

    /// From the operator's start to its passes, and its memory afterwards.
    async fn start(&self, figures: &mut Figures) {
        let operator = self.cluster.restart_operator().await;
        let started = operator.started();
        until("the first pass", async || operator.passes() >= 1).await;
        let first = Timestamp::now();
        until("a pass over each", async || operator.passes() >= self.many as u64).await;
        let all = Timestamp::now();
        figures.add("start_first_pass", first.duration_since(started).as_secs_f64());
        figures.add("start_all_passes", all.duration_since(started).as_secs_f64());
        tokio::time::sleep(SETTLE).await;
        figures.memory("operator_many", operator.memory());
    }

    async fn minute_at_rest(&self, figures: &mut Figures) {
        rest(Duration::from_secs(10)).await;
        let operator = self.cluster.operator().await;
        let (mark, processor) = (Mark::now(), operator.processor());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let requests = mark.requests();
        let other = |request: &Request| !request.is_lease() && !request.is_watch();
        figures.add("minute_leases", count(&requests, Request::is_lease));
        figures.add("minute_watches", count(&requests, Request::is_watch));
        figures.add("minute_other", count(&requests, other));
        figures.add("minute_processor", operator.processor() - processor);
        let what = summary(requests.iter().filter(|request| other(request)));
        if !what.is_empty() {
            eprintln!("    at rest: {what}");
        }
        for memory in self.cluster.memory_of_agents().await {
            figures.memory("agent_many", memory);
        }
    }

    /// What the reports of many nodes cost that change nothing for any Registry.
    async fn reports(&self, figures: &mut Figures) {
        eprintln!("  {NODES} more nodes report");
        let revision = self.cluster.revision().await + 1;
        self.cluster.make_reports(NODES, revision).await;
        rest(Duration::from_secs(10)).await;
        let operator = self.cluster.operator().await;
        let (passes, processor, mark) = (operator.passes(), operator.processor(), Mark::now());
        // Agents spread their passes after a change of the plan; here over twenty seconds.
        for number in 0..NODES {
            self.cluster.report(number, revision + 1).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        figures.add("reports_passes", (operator.passes() - passes) as f64);
        figures.add("reports_processor", operator.processor() - processor);
        let requests = of("operator", &mark.requests());
        figures.add("reports_requests", count(&requests, |request| !request.is_lease() && !request.is_watch()));
        figures.memory("operator_many_nodes", operator.memory());
        self.cluster.remove_reports().await;
    }
}

fn is(registry: &wharf::api::Registry, kind: &str, expected: &str) -> bool {
    condition(registry, kind).as_deref() == Some(expected)
}

fn since(started: Instant, at: Instant) -> f64 {
    at.duration_since(started).as_secs_f64()
}

fn of(component: &str, requests: &[Request]) -> Vec<Request> {
    requests.iter().filter(|request| request.component == component).cloned().collect()
}

fn count(requests: &[Request], counts: impl Fn(&Request) -> bool) -> f64 {
    requests.iter().filter(|request| counts(request)).count() as f64
}

fn count_convergence(figures: &mut Figures, how: &'static str, requests: &[Request], registries: usize) {
    for component in ["operator", "agent"] {
        let requests = of(component, requests);
        let each = |counts: fn(&Request) -> bool| count(&requests, counts) / registries as f64;
        figures.add(&format!("{component}_reads_{how}"), each(Request::is_read));
        figures.add(&format!("{component}_writes_{how}"), each(Request::is_write));
        let all = requests.iter().filter(|request| !request.is_lease() && !request.is_watch());
        eprintln!("    {component}: {}", summary(all));
    }
}

/// Waits until Wharf has written nothing but leases for a while.
async fn rest(quiet: Duration) {
    loop {
        let mark = Mark::now();
        tokio::time::sleep(quiet).await;
        if !mark.requests().iter().any(Request::is_write) {
            return;
        }
    }
}
