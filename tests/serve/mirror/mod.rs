//! Pull-through from outside: `wharf serve` in front of registries that do what a script says, and of real ones.

mod agents;
mod away;
mod bad_input;
mod cache;
mod clients;
mod clock;
mod engines;
mod faults;
mod pins;
mod private;
mod pull;
mod report;
mod room;
mod scripted;
mod served;
mod soak;
mod token_reviews;
#[path = "../../support/upstream/mod.rs"]
pub mod upstream;
mod walk;
