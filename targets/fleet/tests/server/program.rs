//! The server as a program of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::site::Client;

/// A running server; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts it and waits until it listens. An error is what it said instead.
    pub(crate) fn start(mut command: Command) -> Result<(Self, Client), String> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let mut errors = child.stderr.take().expect("a pipe");
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            let mut said = String::new();
            errors.read_to_string(&mut said).expect("text");
            let code = child.wait().expect("gone");
            return Err(format!("{code}: {said}"));
        };
        // What it logs is the test's.
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Ok((Self(child), Client::new(address.parse().expect("an address"))))
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }

    /// SIGTERM.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        Command::new("kill").arg(self.0.id().to_string()).status().expect("SIGTERM");
    }

    /// How it ended.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.0.wait().expect("ends")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The installation's first token, by the program with its place.
pub(crate) fn token(mut command: Command) -> String {
    let output = command.args(["token", "installer", "admin"]).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
