//! Feeds one cache: it is filled with what the API server has, follows its watch, and is filled anew twice an hour, so that an
//! event that was lost does not stay lost. A watch that fails is tried again; it must never end while the view is used.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::future::{pending, ready};
use futures::stream::{iter, once, repeat_with};
use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::Change;
use super::change::child_changes;
use super::trim::trim;
use crate::operator::apis::Apis;

/// How long a cache follows its watch before it is filled anew, before jitter.
const REFILL: Duration = Duration::from_secs(1800);

/// Runs one watch: fills the cache, then tells of the change.
pub(super) fn feed<K>(
    client: &Client,
    writer: reflector::store::Writer<K>,
    config: watcher::Config,
    trim: fn(&mut K),
    sender: mpsc::Sender<Change>,
    changes: fn(&K) -> Vec<Change>,
) -> futures::future::BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let api = Api::<K>::all(client.clone());
    let watch = repeat_with(move || {
        Box::pin(watcher(api.clone(), config.clone()).default_backoff().take_until(Box::pin(refill())))
    });
    Box::pin(tell(watch.flatten().modify(trim).reflect(writer).touched_objects(), sender, changes))
}

/// Whether the cluster serves a kind.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) apis: watch::Receiver<Apis>,
    pub(super) is_served: fn(&Apis) -> bool,
}

impl Served {
    fn now(&self) -> bool {
        (self.is_served)(&self.apis.borrow())
    }

    async fn becomes(mut self, wanted: bool) {
        let is_served = self.is_served;
        if self.apis.wait_for(|apis| is_served(apis) == wanted).await.is_err() {
            // Nobody looks any more, so nothing is going to change.
            pending::<()>().await;
        }
    }
}

/// The same for children of a kind that the cluster may lack: while it is not served, the cache is empty and nothing is asked.
pub(super) fn feed_while_served<K>(
    client: &Client,
    writer: reflector::store::Writer<K>,
    config: watcher::Config,
    served: Served,
    sender: mpsc::Sender<Change>,
) -> futures::future::BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let api = Api::<K>::all(client.clone());
    let watch = repeat_with(move || {
        // With the definition its objects went, of which no watch may have told.
        let emptied = if served.now() { vec![] } else { vec![Ok(watcher::Event::Init), Ok(watcher::Event::InitDone)] };
        let comes = once(served.clone().becomes(true)).filter_map(|()| ready(None));
        let goes = served.clone().becomes(false);
        let end = Box::pin(async move {
            tokio::select! {
                () = refill() => {}
                () = goes => {}
            }
        });
        let follow = watcher(api.clone(), config.clone()).default_backoff().take_until(end);
        Box::pin(iter(emptied).chain(comes).chain(follow))
    });
    let touched = watch.flatten().modify(trim).reflect(writer).touched_objects();
    Box::pin(tell(touched, sender, child_changes))
}

async fn refill() {
    sleep(REFILL.mul_f64(rand::random_range(0.8..1.2))).await;
}

async fn tell<K: Resource<DynamicType = ()>>(
    stream: impl Stream<Item = Result<K, watcher::Error>>,
    sender: mpsc::Sender<Change>,
    changes: fn(&K) -> Vec<Change>,
) {
    let mut stream = std::pin::pin!(stream.into_stream());
    while let Some(item) = stream.next().await {
        match item {
            Ok(object) => {
                for change in changes(&object) {
                    if sender.send(change).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it is tried again"),
        }
    }
}
