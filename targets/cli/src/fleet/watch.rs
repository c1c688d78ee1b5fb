//! `--watch`: what is shown, again and again.

use std::time::Duration;

use console::Term;
use serde_json::Value;

use super::client::Client;
use crate::failure::{Code, Failure, Outcome};

/// Whether to look once or to go on.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Show it anew as it changes, until it is over
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2.0, requires = "watch", value_parser = seconds)]
    pub(super) every: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s: &f64| (0.1..=3600.0).contains(s)).ok_or_else(|| "from 0.1 to 3600".to_owned())
}

/// Rows that lines take on a terminal which may have become narrower since they were drawn.
fn rows(lines: &[String], width: usize) -> usize {
    lines.iter().map(|l| console::measure_text_width(l).div_ceil(width).max(1)).sum()
}

impl Watch {
    /// Shows what `look` gives: the JSON, the text, and whether it is over. A terminal is redrawn; elsewhere each change is
    /// written below the last.
    ///
    /// # Errors
    /// Those of `look`; while watching, a server that cannot be reached is waited for.
    pub(super) fn run(
        self,
        client: &Client,
        json: bool,
        look: impl Fn(&Client) -> Outcome<(Value, String, bool)>,
    ) -> Outcome<()> {
        // What is drawn anew is sent at once, so that it does not flicker.
        let term = Term::buffered_stdout();
        let mut shown = String::new();
        let mut drawn: Vec<String> = Vec::new();
        loop {
            let (text, over) = match look(client) {
                Ok((value, text, over)) => (if json { format!("{value}\n") } else { text }, over),
                Err(failure) if self.watch && failure.code == Code::Unreachable && !shown.is_empty() => {
                    (format!("{shown}\n{}\n", failure.text), false)
                }
                Err(failure) => return Err(failure),
            };
            let wrong = |e: std::io::Error| Failure::new(Code::File, format!("the terminal: {e}"));
            if term.is_term() && self.watch && !json {
                // What does not fit would scroll away, and could not be drawn over.
                let (height, width) = term.size();
                let (room, width) = (usize::from(height).saturating_sub(1).max(1), usize::from(width).max(20));
                let fits: Vec<String> =
                    text.lines().take(room).map(|l| console::truncate_str(l, width - 1, "…").into_owned()).collect();
                let before = rows(&drawn, width).min(room);
                term.clear_last_lines(before)
                    .and_then(|()| term.write_line(&fits.join("\n")))
                    .and_then(|()| term.flush())
                    .map_err(wrong)?;
                drawn = fits;
            } else if text != shown {
                print!("{text}");
            }
            if !self.watch || over {
                return Ok(());
            }
            shown = text;
            std::thread::sleep(Duration::from_secs_f64(self.every));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn lines_wrap_where_the_terminal_became_narrower() {
        let lines = ["0123456789".to_owned(), String::new(), "\u{1b}[31mred\u{1b}[0m".to_owned()];
        assert_eq!(rows(&lines, 20), 3);
        assert_eq!(rows(&lines, 4), 3 + 1 + 1);
    }
}
