//! Sockets in the network of a place of the cluster (see dev/cluster): a listener stays where it was made, whoever serves it.
//! It must never leave a thread of the test in another network than the host's.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::checkout;

/// Does something in the network of a place: `control`, `node1`, …
pub fn within<T: Send>(place: &str, act: impl FnOnce() -> T + Send) -> T {
    let record = std::fs::read_to_string(checkout().join("target/cluster/places").join(place)).unwrap();
    let keeper = record.split_whitespace().next().unwrap().to_owned();
    let network = File::open(format!("/proc/{keeper}/ns/net")).unwrap();
    // The thread ends there, and nothing else ever runs on it.
    let enter_and_act = || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(enter_and_act).join().unwrap())
}
