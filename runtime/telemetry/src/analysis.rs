//! The server's half: what the counts of a fleet say, against the counts of a reference.
//!
//! Two things make the textbook tests useless here, and each has its answer:
//!
//! * **Few inferences.** With ten bins and 100 inferences the PSI exceeds 0.1 in a third of all cases without any
//!   change. Below 500 inferences the verdict is [`Level::NotEnoughData`], which is never a pass; above, what sampling
//!   adds to a statistic is taken off ([`Compared::noise`]).
//! * **Devices that differ.** A camera above a door sees other classes than one above a desk. A test that takes
//!   inferences as independent then rejects nearly always, whatever the size of the fleet. Intervals here come
//!   from drawing *devices* again ([`Bootstrap`]), and probabilities are shown but decide nothing.
//!
//! So an alarm needs three things: an effect that matters ([`Statistic::bounds`]), an interval by device that excludes
//! 0, and both of them in two consecutive windows ([`Alarm`]). Every [`Verdict`] carries the numbers it rests on.
//!
//! | change of | statistic | type |
//! | --- | --- | --- |
//! | a histogram | PSI, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein-1; chi-square and G with their probabilities | [`Compared`] |
//! | the mean of embeddings | Hotelling's T2, by inference and by device; maximum mean discrepancy of random features | [`hotelling`], [`hotelling_by_device`], [`mmd2`] |
//! | the accuracy, without labels | the reference's accuracy by confidence | [`Calibration`] |
//!
//! Nothing here reads a clock or a file, and the same counts give the same verdict to the bit: resampling is seeded.

mod accuracy;
mod covariance;
mod device;
mod distance;
mod fleet;
mod mean;
mod random;
mod verdict;
mod window;

pub use accuracy::{Accuracy, Calibration};
pub use covariance::{CovarianceError, Moments, Whitening, shrink};
pub use device::{Bootstrap, ByDevice, Interval, Unit};
pub use distance::{ChiSquare, CompareError, Compared};
pub use fleet::{Baseline, Feature, Fleet, Tally};
pub use mean::{Hotelling, RandomFeatures, hotelling, hotelling_by_device, mmd2};
pub use random::Random;
pub use verdict::{Alarm, Criteria, Level, Statistic, Verdict};
pub use window::feature_name;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod traps;
