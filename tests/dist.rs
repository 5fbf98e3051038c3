//! Ranks: what starts them, how they meet, what they notice of each other.

#[path = "dist/control.rs"]
mod control;
#[cfg(unix)]
#[path = "dist/faults.rs"]
mod faults;
#[path = "dist/launch.rs"]
mod launch;
