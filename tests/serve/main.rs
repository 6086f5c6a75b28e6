//! The registry server from outside: real connections, real processes, real files. Tests that need other programs are
//! ignored here and run by `dev/test-engines`.
#![allow(clippy::restriction, reason = "a test ends by panicking")]

mod bad_input;
mod client;
mod clients;
mod engines;
mod fuzz;
mod kill;
mod mirror;
mod mirrored;
mod operation;
mod paper;
mod power;
mod power_cache;
mod process;
mod programs;
mod proofs;
mod refusals;
mod slow;
