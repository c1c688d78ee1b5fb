//! `dunlin man`: manual pages.

use serde_json::json;

use crate::app;
use crate::failure::{Code, Failure, Outcome};

/// Writes a manual page for each command: dunlin.1, dunlin-compile.1 and so on.
#[derive(clap::Args, Clone, Debug)]
pub struct Man {
    /// Folder to write into; created when missing
    #[arg(value_name = "DIR")]
    pub folder: String,
}

impl Man {
    /// Writes the pages.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let wrong = |e: std::io::Error| Failure::new(Code::File, format!("{}: {e}", self.folder));
        std::fs::create_dir_all(&self.folder).map_err(wrong)?;
        clap_mangen::generate_to(app::command(), &self.folder).map_err(wrong)?;
        if json {
            println!("{}", json!({"folder": self.folder}));
        } else {
            println!("{}: manual pages written; read one with `man {}/dunlin.1`", self.folder, self.folder);
        }
        Ok(())
    }
}
