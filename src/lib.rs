//! Wharf gives a Kubernetes cluster its own image registries and pull-through mirrors.
//!
//! One binary runs as the operator (`operator`), which turns the resources of `api` into workloads and a plan for the
//! nodes (`plan`), as the agent on each node (`agent`), which carries that plan out, and as the registry server (`serve`),
//! which speaks the protocol of `oci`. `telemetry` is shared by all.
//! Dependencies point one way: `operator` and `agent` use `api`, `plan` and `telemetry`; `serve` uses `oci`, `telemetry` and
//! `token_review`; none of the three uses another.

pub mod agent;
pub mod api;
pub mod mirror_report;
pub mod oci;
pub mod operator;
pub mod plan;
mod quantity;
pub mod serve;
pub mod telemetry;
pub mod token_review;
pub mod uninstall;
mod unstalled;
pub mod volume;
