//! Certificates over the years: the operator on a clock that the tests move, against the in-process API server. Servers and
//! clients are real TLS on both sides, at the clock's time: what is asked is whether a client that read the published
//! certificates some days ago still gets an answer.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod clients;
mod faults;
mod requests;
#[path = "../support/world/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other suites use more of it")]
mod world;
mod years;
