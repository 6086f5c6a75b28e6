//! End to end on a real cluster: what a user does with `kubectl`, `helm`, `skopeo` and `crane`, and what a kubelet does.
//! These tests need root and the programs of `dev/cluster`; `make test-cluster` provides both and runs them one at a
//! time, because they share the cluster and its one installation of Wharf. Nothing here asserts how long a thing takes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking"
)]

mod administration;
mod certificates;
mod images;
mod nodes;
mod refusals;
mod scale;
mod storage;
mod support;
mod troubles;
