//! The registry server: it speaks the OCI distribution protocol over HTTP and keeps content under one folder.
//! It must never need a cluster, and must never acknowledge what a crash could take away.

pub mod repository;
pub mod store;
