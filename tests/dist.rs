//! Ranks: what starts them, how they meet, what they notice of each other.

#[path = "dist/launch.rs"]
mod launch;
