//! The agent: it makes the container runtime of its node follow the node plan.

pub mod call;
pub mod files;
pub mod hosts;
pub mod metrics;
pub mod pace;
pub mod runtime;
