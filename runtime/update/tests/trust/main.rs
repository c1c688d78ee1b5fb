//! Who may make a device run what: the attacks that the specification of The Update Framework names, and every flipped
//! byte.

mod attacks;
mod bench;
mod forgeries;
mod tally;
