//! Logs by defmt, or none.

macro_rules! debug {
    ($($argument:expr),*) => {{
        #[cfg(feature = "defmt")]
        defmt::debug!($($argument),*);
    }};
}

pub(crate) use debug;
