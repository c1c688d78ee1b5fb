//! Logs: by `log` on hosts, by `defmt` on bare metal, nowhere else.
//!
//! What is logged happens at most once a window; nothing is logged for an inference.

macro_rules! warning {
    ($text:literal $(, $argument:expr)*) => {{
        #[cfg(feature = "defmt")]
        defmt::warn!($text $(, $argument)*);
        #[cfg(all(feature = "std", not(feature = "defmt")))]
        log::warn!($text $(, $argument)*);
        #[cfg(not(any(feature = "std", feature = "defmt")))]
        { $(let _ = &$argument;)* }
    }};
}

pub(crate) use warning;
