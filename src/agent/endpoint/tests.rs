//! The endpoint between a client and servers that do what a script says: every failure has a bound of time, and bytes that do not
//! belong together never meet.

mod failing;
mod resuming;
mod scripted;
mod serving;
