//! Standard output and error: writes that end the program quietly when their reader is gone, and styles where a terminal
//! shows them.

use std::fmt::Arguments;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use console::Style;

/// As `std::println!`, through [`output::write`](crate::output::write).
macro_rules! println {
    () => { $crate::output::write(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($argument)*))) };
}

/// As `std::print!`, through [`output::write`](crate::output::write).
macro_rules! print {
    ($($argument:tt)*) => { $crate::output::write(format_args!($($argument)*)) };
}

/// As `std::eprintln!`, without a panic when standard error is closed.
macro_rules! eprintln {
    () => { $crate::output::write_error(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($argument)*))) };
}

/// As `std::eprint!`, without a panic when standard error is closed.
macro_rules! eprint {
    ($($argument:tt)*) => { $crate::output::write_error(format_args!($($argument)*)) };
}

/// Exit code of a program whose reader has gone, as shells give it after SIGPIPE.
const BROKEN_PIPE: i32 = 128 + 13;
/// Exit code when standard output cannot be written for another reason.
const FILE: i32 = crate::failure::Code::File as i32;

static STYLED_OUT: AtomicBool = AtomicBool::new(false);
static STYLED_ERR: AtomicBool = AtomicBool::new(false);
static MARKS: AtomicBool = AtomicBool::new(false);

/// Whether output has colours and marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether to style a stream, by the conventions of <https://no-color.org> and <https://bixense.com/clicolors>.
fn styled(choice: Color, terminal: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
        Color::Auto if set("CLICOLOR_FORCE") => true,
        Color::Auto => {
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            let off = std::env::var_os("CLICOLOR").is_some_and(|value| value == "0");
            terminal && !dumb && !off
        }
    }
}

/// Whether the locale's encoding has marks such as a check mark.
fn unicode() -> bool {
    if cfg!(windows) {
        return true;
    }
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Decides on colours and marks for the rest of the program. Until then there are none.
pub fn init(choice: Color, json: bool) {
    let out = !json && styled(choice, std::io::stdout().is_terminal());
    let err = styled(choice, std::io::stderr().is_terminal());
    STYLED_OUT.store(out, Ordering::Relaxed);
    STYLED_ERR.store(err, Ordering::Relaxed);
    MARKS.store(unicode(), Ordering::Relaxed);
}

/// Ends the program when a stream cannot be written.
fn check(written: std::io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => {
            write_error(format_args!("error: standard output: {error}\n"));
            std::process::exit(FILE);
        }
    }
}

/// Writes to standard output. Ends the program, without a word, when its reader is gone, and with an error when the output
/// cannot be written for another reason.
pub fn write(text: Arguments<'_>) {
    check(std::io::stdout().lock().write_fmt(text));
}

/// Writes what is buffered, as [`write`] does.
pub fn flush() {
    check(std::io::stdout().lock().flush());
}

/// Writes to standard error; what cannot be written there is lost.
pub fn write_error(text: Arguments<'_>) {
    // There is no other place to report it.
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// What a text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Heading,
    /// Something that is as it should be.
    Good,
    /// Something to look at.
    Warning,
    /// Something that failed.
    Bad,
    /// Something of less importance.
    Faint,
}

fn painted(tone: Tone, text: &str) -> String {
    let style = Style::new().force_styling(true);
    let style = match tone {
        Tone::Heading => style.bold(),
        Tone::Good => style.green(),
        Tone::Warning => style.yellow(),
        Tone::Bad => style.red().bold(),
        Tone::Faint => style.dim(),
    };
    style.apply_to(text).to_string()
}

/// Returns a text in its colour for standard output, or as it is where there are no colours.
#[must_use]
pub fn paint(tone: Tone, text: &str) -> String {
    if STYLED_OUT.load(Ordering::Relaxed) { painted(tone, text) } else { text.to_owned() }
}

/// Returns a line with a mark and a colour for standard output, or as it is where there are none.
#[must_use]
pub fn marked(tone: Tone, text: &str) -> String {
    let mark = match tone {
        Tone::Good => "✓ ",
        Tone::Bad => "✗ ",
        Tone::Warning => "! ",
        Tone::Heading | Tone::Faint => "",
    };
    let mark = if STYLED_OUT.load(Ordering::Relaxed) && MARKS.load(Ordering::Relaxed) { mark } else { "" };
    paint(tone, &format!("{mark}{text}"))
}

/// Writes `error: ...`, `warning: ...` or `note: ...` with its hints to standard error.
pub fn report(kind: &str, text: &str) {
    if !STYLED_ERR.load(Ordering::Relaxed) {
        return write_error(format_args!("{kind}: {text}\n"));
    }
    let tone = match kind {
        "error" => Tone::Bad,
        "warning" => Tone::Warning,
        _ => Tone::Heading,
    };
    let hint = painted(Tone::Heading, "hint:");
    let text = text.replace("\n  hint:", &format!("\n  {hint}"));
    write_error(format_args!("{} {text}\n", painted(tone, &format!("{kind}:"))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_go_before_the_terminal() {
        assert!(styled(Color::Always, false));
        assert!(!styled(Color::Never, true));
    }

    #[test]
    fn nothing_is_styled_before_init() {
        assert_eq!(paint(Tone::Bad, "x"), "x");
        assert_eq!(marked(Tone::Good, "x"), "x");
        assert_ne!(painted(Tone::Bad, "x"), "x");
    }
}
