//! The table of the lifecycle, rendered from the code.
