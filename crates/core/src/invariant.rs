//! What must always hold, each as a named predicate.
