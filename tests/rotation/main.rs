//! Certificates over the years: the operator on a clock that the tests move, against the in-process API server. Servers and
//! clients are real TLS on both sides, at the clock's time: what is asked is whether a client that read the published
//! certificates some days ago still gets an answer.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking"
)]

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod clients;
mod faults;
mod requests;
#[path = "../convergence/world.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod world;
mod years;
