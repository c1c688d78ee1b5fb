//! The fleet server of Dunlin.
#![forbid(unsafe_code)]

mod dashboard;
