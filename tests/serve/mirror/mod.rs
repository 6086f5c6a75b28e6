//! Pull-through from outside: `wharf serve` in front of registries that do what a script says, and of real ones.

mod away;
mod bad_input;
mod cache;
mod clients;
mod clock;
mod engines;
mod faults;
mod private;
mod pull;
mod room;
mod served;
mod soak;
mod upstream;
mod walk;
