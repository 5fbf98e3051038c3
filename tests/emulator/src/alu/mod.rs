//! Arithmetic instructions: from opcode to the function that executes it for a warp.
