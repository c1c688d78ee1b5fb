//! What the cross-crate suites share.
