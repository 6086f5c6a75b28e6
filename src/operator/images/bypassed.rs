//! Where a Mirror is passed by: a node got an image of one of its hosts after the node's files were written, and the node's
//! runtime has never asked the Mirror for anything. Pure.
//! It must never accuse a node for an image that it may have had before: what is started again was fetched when it was first
//! seen, however often it is started since.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;

use crate::api::NodeRuntimeStatus;
use crate::oci::{Digest, RegistryHost};

/// How many images of a host are remembered of a node at most. What is beyond proves nothing more.
const MOST: usize = 512;

/// Since when each node has which images, as far as its pods show it. Images are told apart by a hash alone: a cluster can have
/// very many, and no name is needed.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<Place, HashMap<u64, Timestamp>>);

/// A node, and a host of a Mirror.
type Place = (String, RegistryHost);

impl Sightings {
    /// Notes that a node had an image at a time.
    pub(super) fn see(&mut self, node: &str, host: &RegistryHost, image: &Digest, since: Timestamp) {
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        self.earliest((node.to_owned(), host.clone()), hasher.finish(), since);
    }

    fn earliest(&mut self, place: Place, image: u64, since: Timestamp) {
        let images = self.0.entry(place).or_default();
        if images.len() < MOST || images.contains_key(&image) {
            let known = images.entry(image).or_insert(since);
            *known = since.min(*known);
        }
    }

    /// Adds what was seen now to what was seen before, and forgets what concerns nobody any more.
    pub(super) fn add(&mut self, now: Self, concerns: impl Fn(&str, &RegistryHost) -> bool) {
        for (place, images) in now.0 {
            for (image, since) in images {
                self.earliest(place.clone(), image, since);
            }
        }
        self.0.retain(|(node, host), _| concerns(node, host));
    }

    /// The nodes that passed by the Mirror of one of these hosts, by name. `reports` is what the agents report now.
    pub(super) fn bypassed(&self, hosts: &[String], reports: &[(String, NodeRuntimeStatus)]) -> Vec<String> {
        let passed_by = |node: &String, status: &NodeRuntimeStatus| {
            let unused = status.mirrors.iter().filter(|mirror| !mirror.used && hosts.contains(&mirror.host));
            unused.into_iter().any(|mirror| {
                let (Some(written), Ok(host)) = (&mirror.written, mirror.host.parse()) else { return false };
                let images = self.0.get(&(node.clone(), host));
                images.is_some_and(|images| images.values().any(|since| *since > written.0))
            })
        };
        let mut nodes: Vec<String> =
            reports.iter().filter(|(node, status)| passed_by(node, status)).map(|(node, _)| node.clone()).collect();
        nodes.sort_unstable();
        nodes
    }
}

/// Whether it can still become known of a node that it passes by the Mirror of a host: its agent reports, and not that the
/// Mirror was used.
pub(super) fn concerns(status: &NodeRuntimeStatus, host: &RegistryHost) -> bool {
    status.plan_revision.is_some() && !status.mirrors.iter().any(|mirror| mirror.host == host.as_str() && mirror.used)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WRITTEN: &str = "2026-01-01T12:00:00Z";

    fn report(node: &str, host: &str, written: Option<&str>, used: bool) -> (String, NodeRuntimeStatus) {
        let mirrors = json!([{"host": host, "written": written, "reachable": true, "used": used}]);
        (node.to_owned(), serde_json::from_value(json!({"planRevision": 1, "mirrors": mirrors})).unwrap())
    }

    fn image(letter: &str) -> Digest {
        format!("sha256:{}", letter.repeat(64)).parse().unwrap()
    }

    fn host(name: &str) -> RegistryHost {
        name.parse().unwrap()
    }

    fn seen(images: &[(&str, &str, &str, &str)]) -> Sightings {
        let mut sightings = Sightings::default();
        for (node, name, letter, since) in images {
            sightings.see(node, &host(name), &image(letter), since.parse().unwrap());
        }
        sightings
    }

    #[test]
    fn a_node_passes_by_when_an_image_came_after_the_files_and_nothing_was_ever_asked_for() {
        let (before, after) = ("2026-01-01T11:00:00Z", "2026-01-01T13:00:00Z");
        for (what, images, written, used, bypassed) in [
            ("a new image", vec![("a", "docker.io", "1", after)], Some(WRITTEN), false, true),
            (
                "a new image beside an old one",
                vec![("a", "docker.io", "1", before), ("a", "docker.io", "2", after)],
                Some(WRITTEN),
                false,
                true,
            ),
            ("the proof that it was used", vec![("a", "docker.io", "1", after)], Some(WRITTEN), true, false),
            ("no image", vec![], Some(WRITTEN), false, false),
            ("an old image", vec![("a", "docker.io", "1", before)], Some(WRITTEN), false, false),
            ("an image as old as the files", vec![("a", "docker.io", "1", WRITTEN)], Some(WRITTEN), false, false),
            (
                "an old image, started again",
                vec![("a", "docker.io", "1", after), ("a", "docker.io", "1", before)],
                Some(WRITTEN),
                false,
                false,
            ),
            ("no files yet", vec![("a", "docker.io", "1", after)], None, false, false),
            ("an image of another host", vec![("a", "quay.io", "1", after)], Some(WRITTEN), false, false),
            ("an image on another node", vec![("b", "docker.io", "1", after)], Some(WRITTEN), false, false),
        ] {
            let reports = [report("a", "docker.io", written, used)];
            let nodes = seen(&images).bypassed(&["docker.io".to_owned()], &reports);
            assert_eq!(nodes, if bypassed { vec!["a".to_owned()] } else { vec![] }, "{what}");
        }
        // Only of the hosts that are asked about, and by name.
        let all = seen(&[("b", "docker.io", "1", after), ("a", "docker.io", "1", after)]);
        let reports = ["b", "a"].map(|node| report(node, "docker.io", Some(WRITTEN), false));
        assert_eq!(all.bypassed(&["docker.io".to_owned()], &reports), ["a", "b"]);
        assert_eq!(all.bypassed(&["quay.io".to_owned()], &reports), [""; 0]);
    }

    #[test]
    fn what_was_seen_once_is_remembered_for_as_long_as_it_matters() {
        let (before, after) = ("2026-01-01T11:00:00Z", "2026-01-01T13:00:00Z");
        let reports = [report("a", "docker.io", Some(WRITTEN), false)];
        let bypassed = |sightings: &Sightings| sightings.bypassed(&["docker.io".to_owned()], &reports);
        // The pod that ran before the files were written is gone when another one runs its image.
        let mut sightings = seen(&[("a", "docker.io", "1", before)]);
        sightings.add(seen(&[("a", "docker.io", "1", after)]), |_, _| true);
        assert_eq!(bypassed(&sightings), [""; 0]);
        // A pod that passed by and is gone.
        sightings.add(seen(&[("a", "docker.io", "2", after)]), |_, _| true);
        sightings.add(Sightings::default(), |_, _| true);
        assert_eq!(bypassed(&sightings), ["a"]);
        sightings.add(Sightings::default(), |node, _| node != "a");
        assert!(sightings.0.is_empty());
    }

    #[test]
    fn a_node_is_of_concern_while_nothing_was_used_and_its_agent_reports() {
        let (docker, quay) = (host("docker.io"), host("quay.io"));
        let (_, used) = report("a", "docker.io", Some(WRITTEN), true);
        assert!(!concerns(&used, &docker) && concerns(&used, &quay));
        assert!(!concerns(&NodeRuntimeStatus::default(), &docker));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut sightings = Sightings::default();
        for number in 0..2 * MOST as u64 {
            sightings.earliest(("a".to_owned(), host("docker.io")), number, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(sightings.0.values().map(HashMap::len).sum::<usize>(), MOST);
    }
}
