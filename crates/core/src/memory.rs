//! The readable reference store.
