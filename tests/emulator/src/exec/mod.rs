//! Instructions of a warp.
