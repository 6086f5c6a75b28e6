//! End to end on a real cluster: what a user does with `kubectl`, `helm`, `skopeo` and `crane`, and what a kubelet does.
//! These tests need root and the programs of `dev/cluster`, which `make test-cluster` provides. Nothing here asserts how long a
//! thing takes.
//!
//! They run on one cluster with one installation of Wharf. Its rules:
//! - A test works in a [`support::Namespace`] of its own, and names what belongs to no namespace (classes, volumes, files of
//!   nodes) after it. Such tests run a few at a time.
//! - A test that disturbs others has the cluster alone: its first line is `let _alone = Alone::new();` ([`turn::Alone`]). That
//!   is one that stops, restarts, kills or counts the operator or the agents, takes a node or the API server away, changes a
//!   definition or the authority, or needs silence. It is slow for everybody: most tests are not of this kind.
//! - Whatever a test changed, it puts back however it ends; what it leaves of Wharf and its nodes when it fails, `Alone` puts right.

#![allow(clippy::restriction, reason = "a test ends by panicking")]

mod administration;
mod audit;
mod certificates;
mod chaos;
mod children;
mod documents;
mod edge;
mod engines;
mod exposing;
mod gateway;
mod images;
mod mirror;
mod names;
mod nodes;
mod outside;
mod planned;
mod processes;
mod refusals;
mod removals;
mod rights;
mod scale;
mod storage;
mod support;
mod troubles;
mod turn;
mod volumes;
