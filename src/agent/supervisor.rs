//! The agent's outer process. It starts the one that works and ends it when it stops turning: what accepts connections and never
//! answers would hold up every pull of the node, where a port that is refused costs nothing. It must do nothing else, so that it
//! can never hang itself, and never leave a worker behind.
//!
//! The worker tells that it turns by a byte on its standard output a few times a second, from the loop that serves connections.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// How often the worker tells that it turns.
pub const BEAT: Duration = Duration::from_millis(250);
/// How long it may be silent. With the time that ending it takes, its port is refused within two seconds.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long it may take to the first beat: until then it has bound no port.
const BEGINNING: Duration = Duration::from_secs(15);
/// How long to wait before a worker is started again after the first failure; it doubles up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(30);
/// A worker that ran for this long has not failed at its start.
const SETTLED: Duration = Duration::from_secs(60);
/// How long a worker that was told to stop may take.
const STOP: Duration = Duration::from_secs(28);
/// The argument that makes a process the worker.
pub const WORKER: &str = "--worker";

/// Why the agent cannot be supervised.
#[derive(Debug, Error)]
pub enum Error {
    /// The process cannot be told to stop.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// It is not known which program this is.
    #[error("cannot find the program that this process runs, to start it again as the worker: {0}")]
    Program(#[source] std::io::Error),
    /// The worker ended with an error after it was told to stop.
    #[error("the worker ended with {0} when it was told to stop")]
    Worker(ExitStatus),
}

/// How a worker ended.
enum Ended {
    /// By itself, or by somebody's signal.
    Died(ExitStatus),
    /// It was silent for too long and was ended.
    Silent(Duration),
    /// It could not be started or waited for.
    Lost(std::io::Error),
    /// It was told to stop.
    Stopped(ExitStatus),
}

/// Runs this program again as the worker, with the same arguments, for as long as the process is not told to stop.
///
/// # Errors
/// When it cannot begin, or the worker could not end well.
pub async fn run() -> Result<(), Error> {
    let program = std::env::current_exe().map_err(Error::Program)?;
    let arguments = std::env::args_os().skip(1).chain([OsString::from(WORKER)]).collect();
    supervise(program, arguments).await
}

async fn supervise(program: PathBuf, arguments: Vec<OsString>) -> Result<(), Error> {
    let mut signals = Stop {
        terminate: signal(SignalKind::terminate()).map_err(Error::Signals)?,
        interrupt: signal(SignalKind::interrupt()).map_err(Error::Signals)?,
    };
    let mut pause = FIRST;
    loop {
        let began = Instant::now();
        match watch(&program, &arguments, &mut signals).await {
            Ended::Stopped(status) if status.success() => return Ok(()),
            Ended::Stopped(status) => return Err(Error::Worker(status)),
            Ended::Died(status) => tracing::error!(%status, "the worker ended; it is started again"),
            Ended::Silent(time) => tracing::error!(
                milliseconds = time.as_millis(),
                "the worker was silent and was ended, so that its port is refused; it is started again"
            ),
            Ended::Lost(error) => tracing::error!(%error, "the worker cannot be run; it is tried again"),
        }
        if began.elapsed() > SETTLED {
            pause = FIRST;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = signals.next() => return Ok(()),
        }
        pause = (pause * 2).min(SLOWEST);
    }
}

/// The signals that end the agent.
struct Stop {
    terminate: Signals,
    interrupt: Signals,
}

impl Stop {
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// Starts a worker and stays with it to its end.
async fn watch(program: &PathBuf, arguments: &[OsString], signals: &mut Stop) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut worker = match command.spawn() {
        Ok(worker) => worker,
        Err(error) => return Ended::Lost(error),
    };
    let Some(mut beats) = worker.stdout.take() else {
        return Ended::Lost(std::io::Error::other("it has no standard output"));
    };
    tokio::select! {
        silence = silence(&mut beats, BEGINNING) => end(&mut worker, silence).await,
        signal = signals.next() => stop(&mut worker, &mut beats, signal).await,
    }
}

/// Returns when the worker has been silent for too long, with how long; or when it has closed its end: it has ended.
async fn silence(beats: &mut ChildStdout, beginning: Duration) -> Option<Duration> {
    let mut buffer = [0; 64];
    let mut patience = beginning;
    loop {
        match timeout(patience, beats.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => patience = SILENCE,
            Ok(_) => return None,
            Err(_) => return Some(patience),
        }
    }
}

/// Ends a worker that is silent, or sees to one that has ended.
async fn end(worker: &mut Child, silence: Option<Duration>) -> Ended {
    // A worker that has closed its output and runs on cannot be watched any more.
    let grace = if silence.is_some() { Duration::ZERO } else { SILENCE };
    if let Ok(ended) = timeout(grace, worker.wait()).await {
        return ended.map_or_else(Ended::Lost, Ended::Died);
    }
    // A stopped process can be killed, and its sockets close with it.
    match worker.kill().await {
        Ok(()) => Ended::Silent(silence.unwrap_or(grace)),
        Err(error) => Ended::Lost(error),
    }
}

/// Passes a signal on to the worker and waits for its end. One that is silent meanwhile holds its port like any other.
async fn stop(worker: &mut Child, beats: &mut ChildStdout, signal: Signal) -> Ended {
    let process = worker.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(process) = process
        && let Err(error) = kill_process(process, signal)
    {
        tracing::warn!(%error, "the worker cannot be told to stop");
    }
    // It beats a little later than usual while it goes from one thing to the next.
    let ended = async {
        match silence(beats, SILENCE * 2).await {
            None => Some(worker.wait().await),
            Some(_) => None,
        }
    };
    match timeout(STOP, ended).await {
        Ok(Some(Ok(status))) => Ended::Stopped(status),
        Ok(Some(Err(error))) => Ended::Lost(error),
        Ok(None) | Err(_) => {
            tracing::error!("the worker did not stop in time and is ended");
            let _ = worker.kill().await;
            Ended::Stopped(ExitStatus::from_raw(0))
        }
    }
}
