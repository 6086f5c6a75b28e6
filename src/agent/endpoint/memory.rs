//! What the endpoint remembers of what it did, for seconds or until the files of a host change. It must never grow with what clients
//! ask for: what is remembered is bounded, and the oldest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::oci::RegistryHost;

/// How much is remembered of one sort.
const MOST: usize = 1024;

/// Words that hold for a while.
pub struct Recent {
    lasts: Duration,
    words: Mutex<VecDeque<(String, Instant)>>,
}

impl Recent {
    /// Words are forgotten after this time.
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, words: Mutex::default() }
    }

    /// Remembers a word from now on.
    pub fn add(&self, word: &str) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.retain(|(known, since)| known != word && since.elapsed() < self.lasts);
        if words.len() >= MOST {
            words.pop_front();
        }
        words.push_back((word.to_owned(), Instant::now()));
    }

    /// Whether a word was added lately.
    pub fn has(&self, word: &str) -> bool {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().any(|(known, since)| known == word && since.elapsed() < self.lasts)
    }
}

/// Of which registries the container runtime has asked for something, since their files were written.
#[derive(Default)]
pub struct Used {
    hosts: Mutex<BTreeMap<RegistryHost, bool>>,
    /// Told when a registry becomes one of them.
    pub changed: Notify,
}

impl Used {
    /// From now on it counts whether the runtime asks.
    pub fn begin(&self, host: RegistryHost) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host, false);
    }

    /// Whether the runtime has asked for something of it.
    pub fn has(&self, host: &RegistryHost) -> bool {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).get(host).is_some_and(|used| *used)
    }

    /// A client that calls itself this has asked for something of a registry of the plan.
    pub fn asked(&self, host: &RegistryHost, client: &str) {
        if !is_runtime(client) {
            return;
        }
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.insert(host.clone(), true) != Some(true) {
            drop(hosts);
            self.changed.notify_one();
        }
    }

    /// Forgets all registries but these.
    pub fn keep(&self, wanted: impl Fn(&RegistryHost) -> bool) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).retain(|host, _| wanted(host));
    }
}

/// Whether a client calls itself a container runtime.
fn is_runtime(client: &str) -> bool {
    let client = client.to_ascii_lowercase();
    ["containerd", "cri-o", "podman", "libpod", "containers/"].iter().any(|name| client.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn words_are_forgotten_after_their_time_and_when_there_are_too_many() {
        let recent = Recent::new(Duration::from_secs(30));
        recent.add("a");
        tokio::time::advance(Duration::from_secs(20)).await;
        recent.add("b");
        assert!(recent.has("a") && recent.has("b") && !recent.has("c"));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!recent.has("a") && recent.has("b"));
        for number in 0..MOST {
            recent.add(&number.to_string());
        }
        assert!(!recent.has("b") && recent.has("0"));
    }

    #[test]
    fn use_is_what_a_runtime_asks_for_since_the_files_were_written() {
        let used = Used::default();
        let host: RegistryHost = "docker.io".parse().unwrap();
        used.begin(host.clone());
        used.asked(&host, "curl/8");
        used.asked(&host, "Wharf agent");
        assert!(!used.has(&host));
        used.asked(&host, "containerd/v2.3.4");
        assert!(used.has(&host));
        used.begin(host.clone());
        assert!(!used.has(&host));
        used.asked(&host, "cri-o/1.31 go/1.23");
        used.keep(|_| false);
        assert!(!used.has(&host));
    }
}
