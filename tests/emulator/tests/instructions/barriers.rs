//! barriers
