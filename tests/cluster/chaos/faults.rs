//! What is done to Wharf and its world, one thing a round.
//! Everything must be put right again at the end of the walk, also when that is a panic.

use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _};

use super::seat::Seat;
use crate::processes::{kill_agent, kill_engine, kill_operator};
use crate::support::{Outcome, attempt, on_node, run};
use crate::volumes::HandMade;

/// The faults under way.
pub struct Faults<'test> {
    volume: &'test HandMade,
    /// A restart of a node goes on for rounds.
    restart: Option<JoinHandle<Outcome>>,
    filled: bool,
}

impl<'test> Faults<'test> {
    pub fn new(volume: &'test HandMade) -> Self {
        Self { volume, restart: None, filled: false }
    }

    /// One fault; what it was. The slow ones come in turn, so that a short walk has each of them, too.
    pub fn strike(&mut self, round: u64, random: &mut StdRng, seats: &[Seat]) -> String {
        if self.filled {
            self.make_room();
        }
        match round % 15 {
            3 => self.cut_power(),
            7 => {
                self.filled = true;
                // Whatever writes beside the registry: the volume has no room left.
                on_node(1, &["sh", "-c", &format!("cat /dev/zero >{}/filler || true", self.volume.folder())]);
                "the volume is full".to_owned()
            }
            11 => pause(random),
            _ => kill(random, seats),
        }
    }

    /// The volume is of node 1, in memory: power is cut on the other.
    fn cut_power(&mut self) -> String {
        self.join();
        self.restart = Some(std::thread::spawn(|| attempt("dev/cluster/restart-node", &["2"], "")));
        "node 2 loses its power".to_owned()
    }

    fn make_room(&mut self) {
        on_node(1, &["rm", "-f", &format!("{}/filler", self.volume.folder())]);
        self.filled = false;
    }

    fn join(&mut self) {
        if let Some(restart) = self.restart.take() {
            restart.join().unwrap().unwrap_or_else(|said| panic!("node 2 does not come back:\n{said}"));
        }
    }

    pub fn end(&mut self) {
        self.join();
        self.make_room();
    }
}

impl Drop for Faults<'_> {
    fn drop(&mut self) {
        // A node that is being started must not meet the next test's cluster half way.
        if let Some(restart) = self.restart.take() {
            let _ = restart.join();
        }
    }
}

/// Stops the API server for a time in which requests hang; it answers them all afterwards.
fn pause(random: &mut StdRng) -> String {
    let time = Duration::from_millis(random.random_range(2000..6000));
    run("dev/cluster/kill", &["apiserver", "STOP"]);
    std::thread::sleep(time);
    run("dev/cluster/kill", &["apiserver", "CONT"]);
    format!("the API server stood still for {time:?}")
}

fn kill(random: &mut (impl Rng + ?Sized), seats: &[Seat]) -> String {
    let (what, killed) = match random.random_range(0..4) {
        0 => ("an agent".to_owned(), kill_agent(random.random_range(1..=2))),
        1 | 2 => ("the operator".to_owned(), kill_operator()),
        _ => {
            let seat = seats.choose(random).unwrap();
            (format!("the engine of {}", seat.host()), kill_engine(&seat.namespace, &seat.name))
        }
    };
    if killed { format!("{what} is killed") } else { format!("{what} does not run") }
}
