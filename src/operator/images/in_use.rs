//! The config map that tells a Mirror's pods which images the cluster's pods run, so that these are evicted last.
//! It must never be written from a list that was not read to its end: what is missing there would be evicted first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::api::{Mirror, labels};
use crate::oci::{Digest, RegistryHost};
use crate::operator::apply::Child;
use crate::operator::mirror::names::{IN_USE_KEY, Names};
use crate::operator::view::{View, cached};

/// How many bytes of digests are written at most, about 12,000 lines: the API server takes no config map of more than a mebibyte.
const LONGEST: usize = 12_000 * 72;

/// The digests that pods run, by the registry of their images.
pub(super) type InUse = BTreeMap<RegistryHost, BTreeSet<Digest>>;

/// The config map of a Mirror.
pub(super) fn child(mirror: &Mirror, in_use: &InUse, namespace: &str, view: &View) -> Child {
    let names = Names::new(namespace, mirror.name_any());
    let hosts = mirror.spec.upstreams.iter().filter_map(|upstream| upstream.host.parse::<RegistryHost>().ok());
    let digests: BTreeSet<&Digest> = hosts.filter_map(|host| in_use.get(&host)).flatten().collect();
    let owner = mirror.controller_owner_ref(&()).map(|mut owner| {
        // Blocking the owner's deletion would need a right on the Mirror's finalizers, and nothing waits for it.
        owner.block_owner_deletion = None;
        owner
    });
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(names.in_use()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::of_mirror(names.mirror())),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(IN_USE_KEY.to_owned(), document(&digests))])),
        ..ConfigMap::default()
    };
    Child::new(&config_map, cached(&view.config_maps, namespace, &names.in_use()).as_deref())
}

/// One digest a line, sorted, and a comment on those for which there was no room.
fn document(digests: &BTreeSet<&Digest>) -> String {
    use std::fmt::Write as _;
    let mut text = "# Written by Wharf: what pods of the cluster run.\n".to_owned();
    let mut left_out = 0;
    for digest in digests {
        if left_out == 0 && text.len() + digest.as_str().len() < LONGEST {
            text.push_str(digest.as_str());
            text.push('\n');
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {left_out} more are left out for want of room.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_stand_one_a_line_and_those_without_room_are_counted() {
        let digests: BTreeSet<Digest> =
            (0..13_000).map(|number| format!("sha256:{number:064}").parse().unwrap()).collect();
        assert_eq!(document(&BTreeSet::new()).lines().count(), 1);
        let few = document(&digests.iter().take(2).collect());
        assert_eq!(few.lines().skip(1).collect::<Vec<_>>(), [format!("sha256:{:064}", 0), format!("sha256:{:064}", 1)]);
        let all = document(&digests.iter().collect());
        let written = all.lines().filter(|line| line.starts_with("sha256:")).count();
        assert!((11_900..=12_000).contains(&written) && all.len() < 1024 * 1024, "{written}");
        assert_eq!(all.lines().last().unwrap(), format!("# {} more are left out for want of room.", 13_000 - written));
    }
}
