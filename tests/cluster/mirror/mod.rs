//! Mirrors end to end: nodes with both generations of containerd pull from a scripted registry that stands where docker.io
//! is, under its real name, through a Mirror and without one.

mod bad_input;
mod bootstrap;
mod disruptions;
mod everyday;
mod growing;
mod hub;
mod leaving;
mod pins;
mod place;
mod podman;
mod private;
mod pulls;
mod squatter;
mod stage;
mod table;
#[allow(dead_code, reason = "the tests of `wharf serve` use the rest")]
#[path = "../../support/upstream/mod.rs"]
mod upstream;
