//! The world beyond the test cluster, as its end-to-end tests have it: a scripted registry where docker.io is.
//! It must never be another one than theirs.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/cluster/mirror/hub.rs"]
pub mod hub;
#[path = "../../tests/cluster/mirror/place.rs"]
mod place;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/support/upstream/mod.rs"]
mod upstream;
