//! Names of the labels, annotations and finalizers that Wharf puts on objects.
//! It must never hold a value that depends on an object: those are made by the builders.

use std::collections::BTreeMap;

/// Says which kind of software an object belongs to: `registry` on the children of a Registry, `mirror` on those of a Mirror.
pub const NAME: &str = "app.kubernetes.io/name";
/// Says which Registry or Mirror an object belongs to, by its name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Says which part of Wharf a pod belongs to.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Marks all that Wharf made. Every watch of children selects on it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGED_BY_WHARF: &str = "wharf";
/// The selector for everything that Wharf made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=wharf";

/// The selector for config maps that Wharf made, but for those with the certificates that clients must trust: these are found by
/// their name, whoever made them.
pub const MANAGED_CONFIG_MAPS_SELECTOR: &str = "app.kubernetes.io/managed-by=wharf,app.kubernetes.io/name!=ca-bundle";

/// Annotation: SHA-256 of the intent that was last applied to this object, so that an unchanged intent is not sent again.
pub const INTENT: &str = "wharf.dev/intent";
/// Annotation on a pod template: SHA-256 of all files that the engine reads only at its start.
pub const CONTENT: &str = "wharf.dev/content";
/// Annotation on a claim: UID of the Registry that uses it. The claim has no owner reference, so this tells adoption from use.
pub const REGISTRY_UID: &str = "wharf.dev/registry-uid";
/// Annotation on a Secret with a credential for a Mirror: the endpoints, besides the registry's own, to which it may go;
/// comma-separated.
pub const ENDPOINTS: &str = "wharf.dev/endpoints";
/// Annotation on a `ServiceAccount`: the pull secrets that Wharf attached to it, comma-separated.
pub const PULL_SECRETS: &str = "wharf.dev/pull-secrets";
/// Label on a `ServiceAccount` to which Wharf attached a pull secret, so that one watch finds them all.
pub const HAS_PULL_SECRETS: &str = "wharf.dev/pull-secrets";
/// Annotation on the authority's Secret by which a person asks for a rotation; any value. It is taken off when one begins.
pub const ROTATE: &str = "wharf.dev/rotate";
/// Annotation on the authority's Secret: the step of a rotation, and since when.
pub const ROTATION: &str = "wharf.dev/rotation";

/// Finalizer that a Registry carries only while its `storage.deletionPolicy` is `Delete`.
pub const DELETE_STORAGE: &str = "wharf.dev/delete-storage";
/// Finalizer that a Mirror carries: nodes first confirm that they no longer pull through it.
pub const RESTORE_NODES: &str = "wharf.dev/restore-nodes";

/// The value of [`NAME`] on the children of a Registry.
pub const REGISTRY: &str = "registry";
/// The value of [`NAME`] on the children of a Mirror.
pub const MIRROR: &str = "mirror";

/// The labels of every child of the Registry named `instance`.
#[must_use]
pub fn of_registry(instance: &str) -> BTreeMap<String, String> {
    of(REGISTRY, instance)
}

/// The labels of every child of the Mirror named `instance`.
#[must_use]
pub fn of_mirror(instance: &str) -> BTreeMap<String, String> {
    of(MIRROR, instance)
}

fn of(name: &str, instance: &str) -> BTreeMap<String, String> {
    [(NAME, name), (INSTANCE, instance), (MANAGED_BY, MANAGED_BY_WHARF)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
