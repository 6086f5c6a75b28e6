//! Feeds one cache: it is filled with what the API server has, follows its watch, and is filled anew twice an hour, so that an
//! event that was lost does not stay lost. A watch that fails is tried again; it must never end while the view is used.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Change;

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
    let watch = futures::stream::repeat_with(move || {
        let refill = Box::pin(sleep(REFILL.mul_f64(rand::random_range(0.8..1.2))));
        Box::pin(watcher(api.clone(), config.clone()).default_backoff().take_until(refill))
    });
    Box::pin(tell(watch.flatten().modify(trim).reflect(writer).touched_objects(), sender, changes))
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
