//! What goes wrong in a simulated flock, and how often.

/// What goes wrong, and how often.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "What goes wrong, as a probability from 0 to 1")]
pub struct Faults {
    /// A device crashes again and again on a day
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub crash: f64,
    /// A candidate fails its trial and is taken back by the device
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub failed_start: f64,
    /// A device has inferences that fail on a day
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub inference_errors: f64,
    /// A device misses its deadlines on a day
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub deadline_misses: f64,
    /// A shadow's answer is another than that of what serves
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub disagreements: f64,
    /// A device is offline when it should check in
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub offline: f64,
    /// A request arrives twice
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub duplicates: f64,
    /// A device's clock is off by hours or days
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = probability)]
    pub bad_clocks: f64,
    /// Milliseconds that a request takes on its way, on average
    #[arg(long, default_value_t = 0.0, value_name = "MS", value_parser = milliseconds)]
    pub delay: f64,
    /// How many times as often devices crash, fail and are late that run something else than they began with
    #[arg(long, default_value_t = 1.0, value_name = "TIMES", value_parser = milliseconds)]
    pub worse: f64,
}

fn probability(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|p: &f64| (0.0..=1.0).contains(p)).ok_or_else(|| "from 0 to 1".to_owned())
}

fn milliseconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|m: &f64| (0.0..=1e9).contains(m)).ok_or_else(|| "a number from 0".to_owned())
}

/// The probability for a part of a day of what has this probability for a day.
#[must_use]
pub fn within(day: f64, seconds: f64) -> f64 {
    1.0 - (1.0 - day.clamp(0.0, 1.0)).powf((seconds / 86_400.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn parts_of_a_day_make_the_day() {
        let quarter = within(0.2, 21_600.0);
        assert!((1.0 - (1.0 - quarter).powi(4) - 0.2).abs() < 1e-12);
        assert!(within(0.0, 86_400.0).abs() < 1e-12 && (within(1.0, 1.0) - 1.0).abs() < 1e-12);
    }
}
