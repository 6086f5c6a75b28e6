//! Images that are fetched ahead and stay: looked for after the start, when the configuration changes, and from time to time,
//! because their tags move. It must never let go of what it has of an image before all of the next is here, nor take more of an
//! upstream at a time than a pull does.
//!
//! | What is known of an image | What is kept of it | What leads on |
//! |---|---|---|
//! | nothing | nothing | the upstream's answer |
//! | its manifest, and not all that this names | what came of it, and all of the one before | the rest; tried again, ever less often |
//! | all of it | it alone | another manifest behind its tag |
//! | the upstream does not say, or does not have it any more | what was kept before | the next look |

mod bring;
mod demands;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::bring::Shortfall;
pub use self::demands::Demands;
use super::cache::Cache;
use super::cache::store::CacheStore;
use crate::mirror_report::PinReport;
use crate::oci::{Digest, Image, Platform, Reference};

/// How often images are looked for that are here.
const AGAIN: Duration = Duration::from_secs(600);
/// How soon, where one is not; each further time it is twice as long.
const SOON: Duration = Duration::from_secs(5);

/// What is to be here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The images, as they are configured. Of those that do not fit, the last are left out.
    pub images: Vec<String>,
    /// For these platforms, or for all.
    pub platforms: Vec<Platform>,
    /// How many bytes they may take.
    pub share: u64,
}

/// What is kept of one image.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// The manifest of which all is here.
    whole: Option<Digest>,
    /// The one that is on its way to be that.
    next: Option<Digest>,
    /// Why it is not whole as it should be; empty before anybody has looked.
    shortfall: Option<String>,
}

/// Brings images and keeps them.
pub struct Pins {
    cache: Arc<Cache>,
    store: CacheStore,
    wanted: watch::Sender<Wanted>,
    kept: Mutex<BTreeMap<String, Kept>>,
    demands: Arc<Demands>,
}

impl Pins {
    /// Through `cache` into `store`, which keeps what is told to `demands`.
    pub fn new(cache: Arc<Cache>, store: CacheStore, wanted: Wanted, demands: Arc<Demands>) -> Self {
        Self { cache, store, wanted: watch::Sender::new(wanted), kept: Mutex::default(), demands }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other images from now on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|before| {
            let is_other = *before != wanted;
            *before = wanted;
            is_other
        });
    }

    /// The manifests that are to be kept with all that they name, the most important ones first.
    fn manifests(&self) -> Vec<Digest> {
        let (wanted, kept) = (self.wanted.borrow(), self.kept());
        let of_all = || wanted.images.iter().filter_map(|image| kept.get(image));
        let whole = of_all().filter_map(|kept| kept.whole.clone());
        whole.chain(of_all().filter_map(|kept| kept.next.clone())).collect()
    }

    /// How far each image is.
    pub fn report(&self) -> Vec<PinReport> {
        let (wanted, kept) = (self.wanted.borrow(), self.kept());
        let told = |image: &String| {
            let found = kept.get(image).cloned().unwrap_or_default();
            let complete = found.whole.is_some() && found.shortfall.is_none() && found.next.is_none();
            let problem = found.shortfall.or_else(|| (!complete).then(|| "it is being fetched".to_owned()));
            PinReport { image: image.clone(), complete, problem }
        };
        wanted.images.iter().map(told).collect()
    }

    /// Whether one is left out because there is no room for it.
    pub fn exceed(&self) -> bool {
        let (wanted, kept) = (self.wanted.borrow(), self.kept());
        let is_too_much = |kept: &Kept| kept.shortfall.as_deref() == Some(bring::TOO_MUCH);
        wanted.images.iter().any(|image| kept.get(image).is_some_and(is_too_much))
    }

    /// Looks for them until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.wanted.subscribe();
        let mut wait = SOON;
        loop {
            let wanted = changes.borrow_and_update().clone();
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                other = changes.changed() => {
                    if other.is_err() {
                        return;
                    }
                    wait = SOON;
                    continue;
                }
                all = self.look(&wanted) => all,
            };
            let rest = if looked { AGAIN } else { wait };
            wait = if looked { SOON } else { (wait * 2).min(AGAIN) };
            tokio::select! {
                () = stop.cancelled() => return,
                other = changes.changed() => {
                    if other.is_err() {
                        return;
                    }
                    wait = SOON;
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Looks for each image, one after the other. Returns whether all are here.
    async fn look(&self, wanted: &Wanted) -> bool {
        self.kept().retain(|image, _| wanted.images.contains(image));
        self.demands.ahead(self.manifests());
        let (mut taken, mut all) = (bring::Taken::default(), true);
        for image in &wanted.images {
            let outcome = self.look_for(image, wanted, &mut taken).await;
            all &= outcome.is_ok();
            self.note(image, |kept| match outcome {
                Ok(digest) => *kept = Kept { whole: Some(digest), next: None, shortfall: None },
                Err(Shortfall(problem)) => {
                    if kept.shortfall.as_ref() != Some(&problem) {
                        tracing::warn!(image, problem, "a pinned image is not here as it should be");
                    }
                    kept.shortfall = Some(problem);
                }
            });
        }
        all
    }

    async fn look_for(&self, text: &str, wanted: &Wanted, taken: &mut bring::Taken) -> Result<Digest, Shortfall> {
        let image: Image =
            text.parse().map_err(|error: crate::oci::image::InvalidImage| Shortfall(error.to_string()))?;
        let found = match (self.find(&image, &wanted.platforms).await, self.known(&image).await) {
            // While nobody says what it should be, it is what it was.
            (Err(shortfall), Some(known)) => {
                let image = Image { reference: Reference::Digest(known), ..image.clone() };
                self.find(&image, &wanted.platforms).await.map_err(|_| shortfall)?
            }
            (found, _) => found?,
        };
        taken.take(&found, wanted.share)?;
        let root = found.root.clone();
        self.note(text, |kept| kept.next = Some(root.clone()).filter(|root| kept.whole.as_ref() != Some(root)));
        self.bring(&image, &found).await?;
        self.prove_public(&image, &found.root).await;
        Ok(found.root)
    }

    fn note(&self, image: &str, change: impl FnOnce(&mut Kept)) {
        change(self.kept().entry(image.to_owned()).or_default());
        self.demands.ahead(self.manifests());
    }
}
