//! Readiness of a process as a set of named gates, all of which must be open.
//! A gate must never decide liveness: restarting a process does not open a gate that waits for the cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The gates of a process. Cloning shares them.
#[derive(Clone, Default)]
pub struct Health {
    closed: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// One thing that a process waits for before it is ready. It starts closed.
pub struct Gate {
    name: &'static str,
    health: Health,
}

impl Health {
    /// A new closed gate. The name says what is waited for, such as `node plan`.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.with(|closed| closed.insert(name));
        Gate { name, health: self.clone() }
    }

    /// The names of the gates that are still closed; ready means none.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.with(|closed| closed.iter().copied().collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        act(&mut self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Gate {
    /// Opens the gate.
    pub fn open(&self) {
        self.health.with(|closed| closed.remove(self.name));
    }

    /// Closes the gate again.
    pub fn close(&self) {
        self.health.with(|closed| closed.insert(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn ready_when_every_gate_is_open() {
        let health = Health::default();
        let (first, second) = (health.gate("caches"), health.gate("plan"));
        assert_eq!(health.waiting_for(), ["caches", "plan"]);
        first.open();
        assert_eq!(health.waiting_for(), ["plan"]);
        second.open();
        assert!(health.waiting_for().is_empty());
        first.close();
        assert_eq!(health.waiting_for(), ["caches"]);
    }
}
