//! Wharf gives a Kubernetes cluster its own image registries and pull-through mirrors.
//!
//! One binary runs as the operator (`operator`), which turns the resources of `api` into workloads and a plan for the
//! nodes (`plan`), and as the agent on each node (`agent`), which carries that plan out. `telemetry` is shared by both.
//! Dependencies point one way: `operator` and `agent` use `api`, `plan` and `telemetry`, and never each other.

pub mod agent;
pub mod api;
pub mod operator;
pub mod plan;
mod quantity;
pub mod telemetry;
pub mod volume;
