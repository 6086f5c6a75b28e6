//! What the benchmarks share: starting servers, clients and content for them, looking at a process from outside, and keeping
//! figures. It must never know what is measured.

#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod client;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod content;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod folder;
pub mod process;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod server;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod table;
#[allow(dead_code, reason = "each benchmark uses its part")]
pub mod values;

/// The folder with everything.
#[allow(dead_code, reason = "each benchmark uses its part")]
pub fn checkout() -> std::path::PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// A number from the environment.
pub fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")))
}
