//! The agent: it makes the container runtime of its node follow the node plan.
