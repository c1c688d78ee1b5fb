//! `--watch`: what is shown, again and again.

use std::time::Duration;

use console::Term;
use serde_json::Value;

use super::client::Client;
use crate::failure::{Code, Failure, Outcome};

/// Whether to look once or to go on.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Refresh until the rollout ends
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Seconds between two refreshes
    #[arg(long, default_value_t = 2.0, requires = "watch", value_parser = seconds)]
    pub(super) every: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s: &f64| (0.1..=3600.0).contains(s)).ok_or_else(|| "from 0.1 to 3600".to_owned())
}

/// Lines as they fit a terminal. What would scroll away could not be drawn over; of what is too long the end is kept, where the
/// verdict is.
fn fit(text: &str, room: usize, width: usize) -> Vec<String> {
    let short = |line: &str| console::truncate_str(line, width - 1, "…").into_owned();
    let lines: Vec<&str> = text.lines().collect();
    match lines[..] {
        [.., last] if lines.len() > room && room > 2 => {
            let first = lines.iter().take(room - 2).map(|l| short(l));
            first.chain(["…".to_owned(), short(last)]).collect()
        }
        _ => lines.iter().take(room).map(|l| short(l)).collect(),
    }
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
        let (mut shown, mut known) = (String::new(), String::new());
        let mut last = None;
        loop {
            let (text, over) = match look(client) {
                Ok((value, text, over)) => {
                    known = if json { format!("{value}\n") } else { text };
                    (known.clone(), over)
                }
                // Below what was known last, however often.
                Err(failure) if self.watch && failure.code == Code::Unreachable && !known.is_empty() => {
                    (format!("{known}\n{}\n", failure.text), false)
                }
                Err(failure) => return Err(failure),
            };
            let wrong = |e: std::io::Error| Failure::new(Code::File, format!("the terminal: {e}"));
            if term.is_term() && self.watch && !json {
                // What does not fit would scroll away, and could not be drawn over.
                let size = term.size();
                let (room, width) = (usize::from(size.0).saturating_sub(1).max(1), usize::from(size.1).max(20));
                let fits = fit(&text, room, width);
                // Nobody knows where lines are on a terminal of another size.
                let cleared = match last {
                    Some((before, lines)) if before == size => term.clear_last_lines(lines),
                    Some(_) => term.clear_screen(),
                    None => Ok(()),
                };
                cleared.and_then(|()| term.write_line(&fits.join("\n"))).and_then(|()| term.flush()).map_err(wrong)?;
                last = Some((size, fits.len()));
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
    use super::fit;

    #[test]
    fn what_is_too_long_keeps_its_end() {
        let text = "one\ntwo\nthree\nfour\nHOLD";
        assert_eq!(fit(text, 5, 80), ["one", "two", "three", "four", "HOLD"]);
        assert_eq!(fit(text, 4, 80), ["one", "two", "…", "HOLD"]);
        assert_eq!(fit(text, 2, 80), ["one", "two"]);
        assert_eq!(fit("a line of 20 columns", 4, 10), ["a line o…"]);
        assert!(fit("", 4, 80).is_empty());
    }
}
