//! Tells how full a registry's volume is, from inside its pod, where alone the volume can be seen: in the operations of
//! `wharf serve`, and as `wharf volume` beside an engine that does not tell it.
//! It must never write to the volume, and never answer with anything but these numbers: whoever reaches the pod may ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::telemetry::{server, shutdown_on_signal};

/// The path that answers with [`Measurement`] as JSON.
pub const PATH: &str = "/volume";

/// Arguments of `wharf volume`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A folder on the volume.
    #[arg(long)]
    pub folder: PathBuf,
    /// Address to answer on.
    #[arg(long, default_value = "0.0.0.0:5001")]
    pub listen: SocketAddr,
}

/// The room on a volume, as `statvfs(3)` tells it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// Bytes that are taken.
    pub used_bytes: u64,
    /// Bytes that a process without privileges may still take.
    pub available_bytes: u64,
    /// Files and folders that there are.
    pub used_files: u64,
    /// Files and folders that can still be made; zero together with `usedFiles` where the file system does not count them.
    pub available_files: u64,
    /// What the images take; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
}

/// What the images on a volume take.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Images {
    /// Bytes of content, each content once.
    pub bytes: u64,
    /// Repositories that something was pushed to.
    pub repositories: u64,
}

impl Measurement {
    /// How full the volume is, in percent, by bytes or by files, whichever is worse. As `df` does, what only root may use
    /// does not count.
    #[must_use]
    pub fn used_percent(&self) -> i32 {
        percent(self.used_bytes, self.available_bytes).max(percent(self.used_files, self.available_files))
    }
}

fn percent(used: u64, available: u64) -> i32 {
    let (used, all) = (u128::from(used), u128::from(used) + u128::from(available));
    // Rounded up, so that a full volume is never told as 99 %.
    let share = (used * 100).div_ceil(all.max(1));
    i32::try_from(share).unwrap_or(100)
}

/// Measures the volume on which a folder lies.
///
/// # Errors
/// When the folder cannot be asked about, naming it.
pub fn measure(folder: &Path) -> std::io::Result<Measurement> {
    let facts = rustix::fs::statvfs(folder).map_err(|error| {
        let error = std::io::Error::from(error);
        std::io::Error::new(error.kind(), format!("cannot measure the volume of {}: {error}", folder.display()))
    })?;
    let blocks = |count: u64| count.saturating_mul(facts.f_frsize);
    Ok(Measurement {
        used_bytes: blocks(facts.f_blocks.saturating_sub(facts.f_bfree)),
        available_bytes: blocks(facts.f_bavail),
        used_files: facts.f_files.saturating_sub(facts.f_ffree),
        available_files: facts.f_favail,
        images: None,
    })
}

/// Answers until SIGTERM.
///
/// # Errors
/// When the address cannot be bound or the listener fails.
pub async fn run(options: Options) -> std::io::Result<()> {
    let shutdown = shutdown_on_signal()?;
    let listener = server::bind(options.listen).await?;
    axum::serve(listener, router(options.folder, || None))
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Answers at [`PATH`] for the volume of a folder, and for what images take there, as far as somebody knows.
pub fn router(folder: PathBuf, images: impl Fn() -> Option<Images> + Send + Sync + 'static) -> Router {
    let (folder, images) = (Arc::new(folder), Arc::new(images));
    Router::new().route(PATH, get(move || answer(folder.clone(), images())))
}

async fn answer(folder: Arc<PathBuf>, images: Option<Images>) -> Response {
    // A volume whose server is away can make this call hang; it must not hang the answers to others.
    let measured = tokio::task::spawn_blocking(move || measure(&folder)).await;
    match measured {
        Ok(Ok(measurement)) => Json(Measurement { images, ..measurement }).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the measurement ended early: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_of_bytes_and_files_counts() {
        let of = |used_bytes, available_bytes, used_files, available_files| {
            Measurement { used_bytes, available_bytes, used_files, available_files, images: None }.used_percent()
        };
        assert_eq!(of(0, 100, 0, 0), 0);
        assert_eq!(of(50, 50, 1, 99), 50);
        assert_eq!(of(50, 50, 90, 10), 90);
        assert_eq!(of(999, 1, 0, 0), 100);
        assert_eq!(of(0, 0, 0, 0), 0);
        assert_eq!(of(u64::MAX, u64::MAX, 0, 0), 50);
    }

    #[test]
    fn a_folder_that_is_there_is_measured_and_one_that_is_not_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let measured = measure(folder.path()).unwrap();
        assert!(measured.used_bytes > 0 && measured.available_bytes > 0, "{measured:?}");
        let error = measure(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
