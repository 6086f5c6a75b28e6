//! The operator against the in-process API server, with faults: whatever happens to it, it ends where an undisturbed run
//! ends, and once there it writes nothing. Each run is deterministic but for the secrets that are made; those are compared by
//! their presence.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod bundles;
mod calls;
mod contest;
mod crash;
mod departures;
mod edits;
mod exposure;
mod images;
mod leaders;
mod mirror_pods;
mod mirrors;
mod names;
mod planned;
mod policy;
mod pull_secrets;
mod reasons;
mod silence;
mod stale;
#[allow(dead_code, reason = "other suites use more of it")]
mod walks;
mod watches;
#[path = "../support/world/mod.rs"]
mod world;
