//! What is kept of a package between two inferences.
//!
//! Nothing borrows the storage between inferences, so a model is made anew for each. Without `std` that is a proof of its plan, and
//! weights are read where they lie: no memory is taken. With `std` the proof is kept, and the weights in the order that the
//! backend's kernels like.

#[cfg(not(feature = "std"))]
mod none;
#[cfg(feature = "std")]
mod owned;

#[cfg(not(feature = "std"))]
pub(crate) use none::Prepared;
#[cfg(feature = "std")]
pub(crate) use owned::Prepared;
#[cfg(feature = "std")]
pub use owned::WeightPool;
