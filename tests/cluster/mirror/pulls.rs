//! Pulls on the nodes, timed, by each runtime's own program: `ctr` with the folder of hosts that the kubelet's pulls go by is
//! the same code, without what a pod costs. Without that folder it asks the registry itself, as if Wharf were not there.
//! It must never leave an image that it pulled.

use std::time::{Duration, Instant};

use crate::support::{attempt, on_node};

pub const NODES: [u8; 2] = [1, 2];

/// By which way a pull goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the node's files say.
    Configured,
    /// From the registry itself.
    Direct,
}

/// How a pull ended, and when.
#[derive(Clone, Debug)]
pub struct Pull {
    /// What the runtime said at the end, where it failed.
    pub problem: Option<String>,
    pub took: Duration,
}

/// Pulls on a node, for so many seconds at most.
pub fn pull(node: u8, way: Way, reference: &str, seconds: u32) -> Pull {
    pull_as(node, way, reference, None, seconds)
}

/// Pulls as a user, given as `name:password`.
pub fn pull_as(node: u8, way: Way, reference: &str, user: Option<&str>, seconds: u32) -> Pull {
    let (number, seconds) = (node.to_string(), seconds.to_string());
    let mut arguments = vec![&number[..], "timeout", &seconds, "ctr", "-n", "k8s.io", "images", "pull"];
    if way == Way::Configured {
        arguments.extend(["--hosts-dir", "/etc/containerd/certs.d"]);
    }
    if let Some(user) = user {
        arguments.extend(["--user", user]);
    }
    arguments.push(reference);
    let began = Instant::now();
    let outcome = attempt("dev/cluster/node", &arguments, "");
    let took = began.elapsed();
    // Before that are drawings of how far it got.
    let problem = outcome.err().map(|said| said.lines().last().unwrap_or_default().to_owned());
    Pull { problem, took }
}

/// Pulls on each node at once.
pub fn pull_everywhere(way: Way, references: [&str; 2], seconds: u32) -> [Pull; 2] {
    let [first, second] = references;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| pull(NODES[1], way, second, seconds));
        [pull(NODES[0], way, first, seconds), other.join().unwrap()]
    })
}

/// Takes every image of docker.io and ghcr.io from each node.
pub fn forget_everywhere() {
    std::thread::scope(|scope| NODES.map(|node| scope.spawn(move || forget(node))).map(|done| done.join().unwrap()));
}

/// Takes every image of docker.io and ghcr.io from a node, with all that belongs to nothing else.
pub fn forget(node: u8) {
    let script = "ctr -n k8s.io images ls | awk '$1 ~ /^(docker|ghcr)\\.io\\// { print $3 }' | sort -u | while read -r digest; do \
                  ctr -n k8s.io images ls | awk -v digest=\"$digest\" '$3 == digest { print $1 }' | \
                  xargs -r ctr -n k8s.io images rm --sync; done";
    on_node(node, &["sh", "-c", script]);
}
