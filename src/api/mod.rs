//! The resources of group `wharf.dev`: their types, defaults and validation rules, as a user writes them.
//! It must never hold a client or decide anything; what a field means for the cluster is decided in `operator`.

pub mod condition;
pub mod labels;
pub mod mirror;
pub mod node_runtime;
pub mod reason;
pub mod registry;
mod schema;

pub use mirror::{Mirror, MirrorSpec, MirrorStatus};
pub use node_runtime::{NodeRuntime, NodeRuntimeStatus};
pub use registry::{Registry, RegistrySpec, RegistryStatus};
pub use schema::{custom_resource_definitions, definition_files};

/// The API group of every Wharf resource.
pub const GROUP: &str = "wharf.dev";
