//! The format from outside: the checked-in package, damage, truncation, properties.

mod damage;
mod golden_file;
mod properties;
mod sample;
