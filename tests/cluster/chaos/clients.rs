//! Clients that push and pull all the time, as tenants do. They may be refused at any time; they must never be told that an
//! image is unknown which was acknowledged, nor be given other bytes.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::seq::IndexedRandom as _;

use super::seat::Seat;
use crate::support::{Login, Outcome, run};

/// How long a client's program may take, in seconds: a node without power answers nothing.
const LONGEST: u32 = 20;

/// Ends the clients, also by a panic of the walk.
pub struct End<'test>(pub &'test AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn push_all_the_time(number: usize, seats: &[Seat], over: &AtomicBool) {
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer.tar").display().to_string();
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        let seat = seats.choose(&mut rand::rng()).unwrap();
        let Some((life, login)) = seat.life().and_then(|life| Some((life, Login::read(&seat.namespace, &seat.name)?)))
        else {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        let script = format!(
            "cd {} && head -c 300K /dev/urandom >content && tar -cf layer.tar content",
            folder.path().display()
        );
        run("sh", &["-c", &script]);
        let image = login.reference(&format!("app:{number}-{round}"));
        // It is acknowledged when the program says so; what it prints is the image by its digest.
        if let Ok(said) = login.crane_within(LONGEST, &["append", "--new_layer", &layer, "--new_tag", &image]) {
            let digest = said.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned());
            seat.acknowledge(life, format!("app@{}", digest.unwrap_or_else(|| panic!("crane append said {said}"))));
        }
    }
}

pub fn pull_all_the_time(seats: &[Seat], over: &AtomicBool, wrong: &Mutex<Vec<String>>) {
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let seat = seats.choose(&mut rand::rng()).unwrap();
        let Some(life) = seat.life() else { continue };
        let Some(image) = seat.images().choose(&mut rand::rng()).cloned() else { continue };
        let Some(login) = Login::read(&seat.namespace, &seat.name) else { continue };
        let said = login.crane_within(LONGEST, &["export", &login.reference(&image), "/dev/null"]);
        if let Some(said) = said.err().filter(|said| is_loss(said) && seat.is_in(life)) {
            wrong.lock().unwrap().push(format!("{}/{image}: {said}", seat.host()));
        }
    }
}

/// Whether a registry said that it has not what it had acknowledged, or gave something else.
fn is_loss(said: &str) -> bool {
    ["MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN", "verif"].iter().any(|word| said.contains(word))
}

/// Reads every blob of every acknowledged image and compares its digest; how many images there were.
pub fn check_images(seat: &Seat) -> usize {
    let images = seat.images();
    if images.is_empty() {
        return 0;
    }
    let login = Login::read(&seat.namespace, &seat.name).expect("a Registry that is ready has a pull secret");
    let mut script = "set -euo pipefail\n".to_owned();
    for image in &images {
        let reference = login.reference(image);
        let repository = login.reference("app");
        let digest = image.rsplit_once(':').unwrap().1;
        writeln!(
            script,
            "crane manifest {reference} >manifest\n[[ $(sha256sum <manifest) == '{digest}  -' ]] || {{ echo '{reference}: other bytes'; exit 1; }}\n\
             for blob in $(grep -o 'sha256:[0-9a-f]*' manifest); do\n  \
             [[ sha256:$(crane blob {repository}@$blob | sha256sum) == \"$blob  -\" ]] || {{ echo \"{reference}: $blob\"; exit 1; }}\ndone"
        )
        .unwrap();
    }
    let said: Outcome = login.shell(&script);
    said.unwrap_or_else(|said| panic!("an acknowledged image of {} is not there:\n{said}", seat.host()));
    images.len()
}
