//! Many blobs on their way at once, with many readers each: what a mirror holds in memory then. The upstream sends each blob
//! slowly, so that all are on their way together. It must never take a crowd for one that was not there.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::engines::Engine;
use crate::figures::Figures;
use crate::support::client::Client;
use crate::support::content::{Blob, Image};
use crate::upstream::{Manner, Upstream};
use crate::{MEBIBYTE, REPOSITORY};

const FILLS: usize = 100;
const READERS: usize = 1000;
const SIZE: usize = 2 * MEBIBYTE;
/// Bytes a second of each fill.
const RATE: u64 = 400_000;

pub fn measure(folder: &Path, upstream: &Upstream, engine: &Engine, figures: &mut Figures) {
    let image = Image::of((0..FILLS as u64).map(|number| Blob::random(SIZE, 1000 + number)).collect());
    upstream.behave(Manner { rate: RATE, ..Manner::default() });
    upstream.put("crowd", &image);
    let server = engine.start(folder, upstream, 600);
    upstream.sending_at_most();
    let (left, started) = (AtomicUsize::new(READERS), Instant::now());
    let mut allocated: f64 = 0.0;
    std::thread::scope(|scope| {
        for number in 0..READERS {
            let (image, left, server) = (&image, &left, &server);
            scope.spawn(move || {
                // A registry gives so much at once and no more; the blobs are shared out between its two names.
                let blob = &image.blobs[number % FILLS];
                let repository = if number % 2 == 0 { REPOSITORY } else { engine.second };
                let mut client = Client::new(server.address);
                let answer = client.get(&format!("/v2/{repository}/blobs/{}", blob.digest)).unwrap();
                assert_eq!((answer.status, answer.length), (200, blob.bytes.len() as u64));
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        while left.load(Ordering::SeqCst) > 0 {
            allocated = allocated.max(server.memory().allocated);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    figures.add(engine.name, "crowd peak", server.memory().peak);
    figures.add(engine.name, "crowd allocated", allocated);
    figures.add(engine.name, "crowd total", started.elapsed().as_secs_f64());
    figures.add(engine.name, "crowd fills", upstream.sending_at_most() as f64);
}
