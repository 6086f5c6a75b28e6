//! Random operations, some at the same time, against a model that does one after the other: for each round there must be
//! an order in which the model gives the same answers and ends in the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{blob, digest, image, name, open, push_blob, put, reference};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::serve::repository::{Error, MissingContent, Repositories};

const ROUNDS: usize = 120;
const AT_ONCE: usize = 3;
const REPOSITORIES: usize = 2;
const CONTENTS: usize = 3;
const TAGS: usize = 2;

#[derive(Clone, Debug)]
enum Action {
    PushBlob(usize, usize),
    DeleteBlob(usize, usize),
    Mount(usize, usize, usize),
    PutByTag(usize, usize, usize),
    PutByDigest(usize, usize),
    DeleteTag(usize, usize),
    DeleteManifest(usize, usize),
    GetTag(usize, usize),
    GetManifest(usize, usize),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    blobs: BTreeSet<(usize, usize)>,
    manifests: BTreeSet<(usize, usize)>,
    tags: BTreeMap<(usize, usize), usize>,
}

/// What an action came to: done or not, or the manifest that was found.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Done(bool),
    Found(Option<usize>),
}

impl Model {
    fn apply(&mut self, action: &Action) -> Outcome {
        match *action {
            Action::PushBlob(repository, content) => {
                self.blobs.insert((repository, content));
                Outcome::Done(true)
            }
            Action::DeleteBlob(repository, content) => Outcome::Done(self.blobs.remove(&(repository, content))),
            Action::Mount(repository, content, from) => {
                let done = self.blobs.contains(&(from, content));
                if done {
                    self.blobs.insert((repository, content));
                }
                Outcome::Done(done)
            }
            Action::PutByTag(repository, content, tag) => {
                let done = self.put(repository, content);
                if done {
                    self.tags.insert((repository, tag), content);
                }
                Outcome::Done(done)
            }
            Action::PutByDigest(repository, content) => Outcome::Done(self.put(repository, content)),
            Action::DeleteTag(repository, tag) => Outcome::Done(self.tags.remove(&(repository, tag)).is_some()),
            Action::DeleteManifest(repository, content) => {
                self.tags.retain(|(of, _), found| *of != repository || *found != content);
                Outcome::Done(self.manifests.remove(&(repository, content)))
            }
            Action::GetTag(repository, tag) => Outcome::Found(self.tags.get(&(repository, tag)).copied()),
            Action::GetManifest(repository, content) => {
                Outcome::Found(self.manifests.contains(&(repository, content)).then_some(content))
            }
        }
    }

    fn put(&mut self, repository: usize, content: usize) -> bool {
        let done = self.blobs.contains(&(repository, content));
        if done {
            self.manifests.insert((repository, content));
        }
        done
    }
}

fn random_action(random: &mut StdRng) -> Action {
    let (repository, content) = (random.random_range(0..REPOSITORIES), random.random_range(0..CONTENTS));
    let tag = random.random_range(0..TAGS);
    match random.random_range(0..12) {
        0 | 1 => Action::PushBlob(repository, content),
        2 => Action::DeleteBlob(repository, content),
        3 => Action::Mount(repository, content, 1 - repository),
        4..=6 => Action::PutByTag(repository, content, tag),
        7 => Action::PutByDigest(repository, content),
        8 => Action::DeleteTag(repository, tag),
        9 => Action::DeleteManifest(repository, content),
        10 => Action::GetTag(repository, tag),
        _ => Action::GetManifest(repository, content),
    }
}

fn repository(number: usize) -> RepositoryName {
    name(&format!("repository/{number}"))
}

fn content(number: usize) -> Vec<u8> {
    format!("content {number}").into_bytes()
}

fn manifest(number: usize) -> Bytes {
    image(&digest(&content(number)), &[], None)
}

fn manifest_digest(number: usize) -> Digest {
    digest(&manifest(number))
}

fn tag(number: usize) -> String {
    format!("tag-{number}")
}

async fn found(repositories: &Repositories, of: usize, by: &Reference) -> Outcome {
    match repositories.manifest(&repository(of), by).await {
        Ok(stored) => Outcome::Found((0..CONTENTS).find(|number| manifest(*number) == stored.bytes)),
        Err(Error::ManifestUnknown(_)) => Outcome::Found(None),
        Err(error) => panic!("{error}"),
    }
}

async fn perform(repositories: Arc<Repositories>, action: Action) -> Outcome {
    let done = match action {
        Action::PushBlob(of, number) => {
            push_blob(&repositories, &repository(of), &content(number)).await;
            Ok(())
        }
        Action::DeleteBlob(of, number) => repositories.delete_blob(&repository(of), &digest(&content(number))).await,
        Action::Mount(of, number, from) => {
            let (digest, from) = (digest(&content(number)), repository(from));
            // Only from there, although it may have been seen elsewhere.
            let only = |name: &RepositoryName| *name == from;
            return Outcome::Done(repositories.mount(&repository(of), &digest, Some(&from), only).await.unwrap());
        }
        Action::PutByTag(of, number, by) => {
            repositories.put_manifest(put(&repository(of), &tag(by), &manifest(number))).await.map(drop)
        }
        Action::PutByDigest(of, number) => {
            let by = manifest_digest(number);
            repositories.put_manifest(put(&repository(of), by.as_str(), &manifest(number))).await.map(drop)
        }
        Action::DeleteTag(of, by) => repositories.delete_manifest(&repository(of), &reference(&tag(by))).await,
        Action::DeleteManifest(of, number) => {
            repositories.delete_manifest(&repository(of), &Reference::Digest(manifest_digest(number))).await
        }
        Action::GetTag(of, by) => return found(&repositories, of, &reference(&tag(by))).await,
        Action::GetManifest(of, number) => {
            return found(&repositories, of, &Reference::Digest(manifest_digest(number))).await;
        }
    };
    match done {
        Ok(()) => Outcome::Done(true),
        Err(Error::BlobUnknown(_) | Error::ManifestUnknown(_) | Error::MissingContent(_)) => Outcome::Done(false),
        Err(error) => panic!("{error}"),
    }
}

/// All that a client can see.
async fn observe(repositories: &Repositories) -> Model {
    let mut model = Model::default();
    for of in 0..REPOSITORIES {
        for number in 0..CONTENTS {
            if let Some(bytes) = blob(repositories, &repository(of), &digest(&content(number))).await {
                assert_eq!(bytes, content(number));
                model.blobs.insert((of, number));
            }
            if let Outcome::Found(Some(_)) = found(repositories, of, &Reference::Digest(manifest_digest(number))).await
            {
                model.manifests.insert((of, number));
            }
        }
        let listed = match repositories.tags(&repository(of), None, 9).await {
            Ok((tags, _)) => tags,
            Err(Error::RepositoryUnknown(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        for number in 0..TAGS {
            if let Outcome::Found(Some(content)) = found(repositories, of, &reference(&tag(number))).await {
                model.tags.insert((of, number), content);
            }
            let is_listed = listed.iter().any(|listed| listed.as_str() == tag(number));
            assert_eq!(is_listed, model.tags.contains_key(&(of, number)));
        }
    }
    model
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1);
    (0..count)
        .flat_map(|at| {
            shorter.iter().map(move |order| {
                let mut order = order.clone();
                order.insert(at, count - 1);
                order
            })
        })
        .collect()
}

async fn walk(seed: u64) {
    let root = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let mut repositories = open(root.path(), MissingContent::Reject);
    let mut model = Model::default();
    for round in 0..ROUNDS {
        let actions: Vec<Action> = (0..AT_ONCE).map(|_| random_action(&mut random)).collect();
        let running: Vec<_> =
            actions.iter().map(|action| tokio::spawn(perform(repositories.clone(), action.clone()))).collect();
        let mut outcomes = Vec::new();
        for task in running {
            outcomes.push(task.await.unwrap());
        }
        if random.random_range(0..10) == 0 {
            drop(repositories);
            repositories = open(root.path(), MissingContent::Reject);
        }
        let visible = observe(&repositories).await;
        let explained = permutations(AT_ONCE).into_iter().any(|order| {
            let mut after = model.clone();
            order.iter().all(|at| after.apply(&actions[*at]) == outcomes[*at]) && after == visible
        });
        assert!(explained, "seed {seed}, round {round}: {actions:?} gave {outcomes:?}; {model:?} became {visible:?}");
        model = visible;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operations_at_the_same_time_are_as_if_one_came_after_the_other() {
    for seed in 0..6 {
        walk(seed).await;
    }
}
