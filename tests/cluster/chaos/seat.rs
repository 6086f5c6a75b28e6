//! One name in a namespace: the Registry that it has or had, and what must be there because of that.
//! What a deletion under policy `Delete` may take is forgotten before the deletion is asked for, never after.

use std::sync::Mutex;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::support::{attempt, eventually, get};

/// What may change of a Registry without its becoming another.
#[derive(Clone, Debug)]
pub struct Spec {
    deletion_policy: &'static str,
    network_policy: &'static str,
    accounts: &'static [&'static str],
    suspend: bool,
    label: u32,
    /// In MiB.
    memory: u32,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            deletion_policy: "Retain",
            network_policy: "Ports",
            accounts: &["default"],
            suspend: false,
            label: 0,
            memory: 32,
        }
    }
}

impl Spec {
    fn random(random: &mut StdRng) -> Self {
        let mut one_in = |number: u32| random.random_ratio(1, number);
        Self {
            deletion_policy: if one_in(3) { "Delete" } else { "Retain" },
            network_policy: if one_in(3) { "None" } else { "Ports" },
            accounts: if one_in(3) { &[] } else { &["default"] },
            suspend: one_in(6),
            label: random.random_range(0..3),
            memory: random.random_range(32..34),
        }
    }

    fn registry(&self, seat: &Seat) -> String {
        json!({
            "apiVersion": "wharf.dev/v1alpha1",
            "kind": "Registry",
            "metadata": {"name": seat.name, "namespace": seat.namespace},
            "spec": {
                "suspend": self.suspend,
                "storage": {"claim": {"size": "1Gi"}, "deletionPolicy": self.deletion_policy},
                "pullSecrets": {"serviceAccounts": self.accounts},
                "networkPolicy": {"mode": self.network_policy},
                "podTemplate": {
                    "labels": {"example.com/walk": self.label.to_string()},
                    "resources": {"requests": {"memory": format!("{}Mi", self.memory)}},
                },
            },
        })
        .to_string()
    }
}

#[derive(Default)]
struct State {
    /// What the Registry was last given; `None` while there is none.
    spec: Option<Spec>,
    /// Counts the deletions that may have taken the images.
    life: u32,
    /// Acknowledged images, as `repository@digest`.
    images: Vec<String>,
    /// The claim that has to stay.
    claim: Option<String>,
    /// The claim that a Registry which is gone has to have taken with it.
    doomed: Option<String>,
}

pub struct Seat {
    pub namespace: String,
    pub name: String,
    stays: bool,
    state: Mutex<State>,
}

impl Seat {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), stays: false, state: Mutex::default() }
    }

    /// A Registry that exists and is neither changed nor deleted.
    pub fn that_stays(namespace: &str, name: &str) -> Self {
        let state = State { spec: Some(Spec::default()), ..State::default() };
        Self { stays: true, state: Mutex::new(state), ..Self::new(namespace, name) }
    }

    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    pub fn exists(&self) -> bool {
        self.state.lock().unwrap().spec.is_some()
    }

    /// The images that must be there, as they stand.
    pub fn images(&self) -> Vec<String> {
        self.state.lock().unwrap().images.clone()
    }

    /// The life that a push begins in, while there is a Registry.
    pub fn life(&self) -> Option<u32> {
        let state = self.state.lock().unwrap();
        state.spec.as_ref().map(|_| state.life)
    }

    /// Whether nothing was deleted since.
    pub fn is_in(&self, life: u32) -> bool {
        self.state.lock().unwrap().life == life
    }

    /// Notes an image that was acknowledged, unless its life ended meanwhile.
    pub fn acknowledge(&self, life: u32, image: String) {
        let mut state = self.state.lock().unwrap();
        if state.life == life {
            state.images.push(image);
        }
    }

    /// One step of the walk; what it was.
    pub fn step(&self, random: &mut StdRng) -> String {
        let next = Spec::random(random);
        if self.stays {
            return "stays as it is".to_owned();
        }
        if self.exists() && random.random_bool(0.35) {
            return self.delete();
        }
        let what = format!("becomes {next:?}");
        if self.exists() {
            self.apply(next);
        } else {
            self.create(next);
        }
        what
    }

    /// Makes the Registry; one that is still being deleted is waited for.
    pub fn create(&self, spec: Spec) {
        let object = spec.registry(self);
        eventually(&format!("{} is made", self.host()), || attempt("kubectl", &["create", "-f", "-"], &object).ok());
        self.state.lock().unwrap().spec = Some(spec);
    }

    fn apply(&self, spec: Spec) {
        let object = spec.registry(self);
        eventually(&format!("{} is changed", self.host()), || attempt("kubectl", &["apply", "-f", "-"], &object).ok());
        self.state.lock().unwrap().spec = Some(spec);
    }

    /// Starts a Registry that is suspended.
    pub fn resume(&self) {
        let spec = self.state.lock().unwrap().spec.clone();
        if let Some(spec) = spec.filter(|spec| spec.suspend) {
            self.apply(Spec { suspend: false, ..spec });
        }
    }

    fn delete(&self) -> String {
        let registry = get(&["registry", &self.name, "-n", &self.namespace]).expect("nobody else deletes it");
        let mut state = self.state.lock().unwrap();
        let takes_claim = state.spec.take().is_some_and(|spec| spec.deletion_policy == "Delete");
        if takes_claim {
            state.life += 1;
            state.images.clear();
            // Without its finalizer the operator had no time to see the policy, and the claim may stay.
            let claim = state.claim.take();
            state.doomed = claim.filter(|_| registry["metadata"]["finalizers"].is_array());
        }
        drop(state);
        let arguments = ["delete", "registry", &self.name, "-n", &self.namespace, "--wait=false"];
        eventually(&format!("{} is deleted", self.host()), || attempt("kubectl", &arguments, "").ok());
        format!("is deleted{}", if takes_claim { " with its claim" } else { "" })
    }

    fn claim<'list>(&self, claims: &'list [Value]) -> Option<&'list Value> {
        let (name, namespace) = (format!("{}-registry", self.name), &self.namespace);
        claims
            .iter()
            .map(|claim| &claim["metadata"])
            .find(|claim| claim["name"] == *name && claim["namespace"] == **namespace)
    }

    /// The claim of a Registry that exists is noted, and is the same from then on.
    pub fn compare_claim(&self, claims: &[Value]) {
        let mut state = self.state.lock().unwrap();
        let found = self.claim(claims).filter(|claim| claim["deletionTimestamp"].is_null());
        let found = found.and_then(|claim| claim["uid"].as_str()).map(str::to_owned);
        if state.claim.is_some() {
            assert_eq!(found, state.claim, "the claim of {} goes only by the policy Delete", self.host());
        } else if state.spec.is_some() {
            state.claim = found;
        }
    }

    /// A Registry that is gone took its claim with it where its policy was `Delete`.
    pub fn deleted_claim_is_gone(&self, claims: &[Value]) {
        let doomed = self.state.lock().unwrap().doomed.clone();
        let there = self.claim(claims).and_then(|claim| claim["uid"].as_str()).map(str::to_owned);
        assert!(doomed.is_none() || there != doomed, "{} has left its claim", self.host());
    }
}
