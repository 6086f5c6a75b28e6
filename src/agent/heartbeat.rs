//! How the worker tells its supervisor that it turns. It beats on the same thread that serves connections, so that whatever holds up
//! the one holds up the other; and it must end with its supervisor, because nobody would end it when it hangs.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd as _;

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::unix::pipe::Sender;
use tokio::time::{MissedTickBehavior, interval};

use super::supervisor::BEAT;

/// Beats for as long as the supervisor listens. Returns why it cannot be told any more: it is gone, or standard output is not its pipe.
pub async fn beat() -> io::Error {
    match beat_on().await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn beat_on() -> io::Result<Infallible> {
    // The kernel's own word, for when this loop does not turn. It is of the thread that started this process: the supervisor's only one.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let pipe = Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match pipe.try_write(b".") {
            Ok(_) => {}
            // The supervisor is stopped or slow. It is alive, and will find what it has missed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
