//! What the benchmarks share: looking at a process from outside, and keeping figures. It must never know what is measured.

pub mod process;
pub mod values;

/// A number from the environment.
pub fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")))
}
