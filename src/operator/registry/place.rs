//! The place where a Registry keeps its images, and which of two Registries may have it. Pure.
//! Two engines that write to one place damage it; the older Registry keeps it, then the one whose name comes first.

use std::time::Duration;

use kube::ResourceExt;

use super::names::Names;
use crate::api::Registry;

/// How long after its creation nobody can come any more that precedes a Registry.
const SETTLED: Duration = Duration::from_secs(2);

/// Where images are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A claim: its namespace and name.
    Claim(String, String),
    /// A folder of a bucket: endpoint, bucket and prefix.
    Bucket(String, String, String),
}

/// Where a Registry keeps its images.
#[must_use]
pub fn place_of(registry: &Registry) -> Place {
    let storage = &registry.spec.storage;
    let namespace = registry.namespace().unwrap_or_default();
    if let Some(s3) = &storage.s3 {
        let endpoint = s3.endpoint.clone().unwrap_or_default();
        return Place::Bucket(endpoint, s3.bucket.clone(), s3.prefix.trim_matches('/').to_owned());
    }
    let own = || Names::new(namespace.clone(), registry.name_any()).claim();
    Place::Claim(namespace.clone(), storage.existing_claim_name.clone().unwrap_or_else(own))
}

/// The Registry that keeps its images in the same place and came first.
#[must_use]
pub fn older_with_same<'a>(
    registry: &Registry,
    others: impl IntoIterator<Item = &'a Registry>,
) -> Option<&'a Registry> {
    let place = place_of(registry);
    others
        .into_iter()
        .filter(|other| other.metadata.uid != registry.metadata.uid)
        .filter(|other| place_of(other) == place && precedes(other, registry))
        .min_by_key(|other| rank(other))
}

/// Until when it is not known who came first, so that a new Registry waits. A time of creation has whole seconds: within the
/// same one, and some more for the clocks of API servers, a Registry may still come that precedes it. A volume keeps a second
/// engine away by itself, a bucket does not. Nobody waits for a clock that is far off.
#[must_use]
pub fn undecided_until(registry: &Registry, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let made = registry.metadata.creation_timestamp.as_ref()?.0;
    let is_new = now.duration_since(made).unsigned_abs() < SETTLED;
    (is_new && registry.spec.storage.s3.is_some()).then(|| made + SETTLED)
}

/// Whether `one` came before `other`, so that it wins what both claim.
#[must_use]
pub fn precedes(one: &Registry, other: &Registry) -> bool {
    rank(one) < rank(other)
}

/// What two Registries that claim the same are compared by; the lesser one wins.
pub(super) fn rank(registry: &Registry) -> (Option<jiff::Timestamp>, Option<&str>, Option<&str>) {
    let metadata = &registry.metadata;
    let made = metadata.creation_timestamp.as_ref().map(|time| time.0);
    (made, metadata.namespace.as_deref(), metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::operator::registry::fixture;

    fn registry(name: &str, made: &str, spec: &str) -> Registry {
        let mut registry = fixture::team(spec);
        registry.metadata.name = Some(name.into());
        registry.metadata.uid = Some(format!("uid of {name}"));
        registry.metadata.creation_timestamp = Some(Time(made.parse().unwrap()));
        registry
    }

    fn winner(of: &Registry, others: &[Registry]) -> Option<String> {
        older_with_same(of, others).map(ResourceExt::name_any)
    }

    #[test]
    fn the_older_one_keeps_a_place_then_the_name() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let bucket = "{storage: {s3: {bucket: images, prefix: team/}}}";
        let first = registry("b", early, bucket);
        let second = registry("a", late, "{storage: {s3: {bucket: images, prefix: team}}}");
        let all = [first.clone(), second.clone()];
        assert_eq!(winner(&first, &all), None);
        assert_eq!(winner(&second, &all), Some("b".into()));
        let same_time = registry("a", early, bucket);
        assert_eq!(winner(&first, &[same_time]), Some("a".into()));
        let elsewhere = registry("c", late, "{storage: {s3: {bucket: images, endpoint: 'https://other'}}}");
        assert_eq!(winner(&elsewhere, &all), None);
    }

    #[test]
    fn a_registry_on_a_bucket_waits_until_nobody_can_come_that_precedes_it() {
        let made: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let bucket = registry("a", "2026-01-01T00:00:00Z", "{storage: {s3: {bucket: images}}}");
        let after = |millis: i64| undecided_until(&bucket, made + jiff::SignedDuration::from_millis(millis));
        let until = Some(made + SETTLED);
        assert_eq!([-5000, -500, 0, 1500, 2000, 5000].map(after), [None, until, until, until, None, None]);
        assert_eq!(undecided_until(&registry("a", "2026-01-01T00:00:00Z", "{}"), made), None);
    }

    #[test]
    fn a_claim_given_by_name_may_be_the_one_of_another_registry() {
        let owner = registry("a", "2026-01-01T00:00:00Z", "{}");
        let guest = registry("b", "2026-01-02T00:00:00Z", "{storage: {existingClaimName: a-registry}}");
        assert_eq!(winner(&guest, std::slice::from_ref(&owner)), Some("a".into()));
        assert_eq!(winner(&owner, &[guest]), None);
        let mut abroad = registry("c", "2026-01-02T00:00:00Z", "{storage: {existingClaimName: a-registry}}");
        abroad.metadata.namespace = Some("elsewhere".into());
        assert_eq!(winner(&abroad, &[owner]), None);
    }
}
