//! Copies of a server that keeps everything in one folder.
//!
//! With PostgreSQL and S3 their own tools do this: `pg_dump` first, then the bucket; rows never name artifacts that are
//! not there yet.

use std::path::Path;

use crate::config::Config;
use crate::private;
use crate::store::{Engine, Store};

/// Writes database, artifacts and keys into a new folder. The server may run: the database's copy is one transaction, and
/// artifacts that it names are there before it. Gives the address of the bucket, if artifacts are in one: these are not
/// copied, and a server that is restored finds them where they are.
///
/// # Errors
/// What could not be written, or that the engine has tools of its own.
pub async fn backup(store: &Store, config: &Config, to: &Path) -> Result<Option<String>, String> {
    if store.engine() != Engine::Sqlite {
        return Err("PostgreSQL is saved with pg_dump, the keys as a folder, and S3 with its provider's tools".into());
    }
    let bucket = config.artifacts.starts_with("s3://").then(|| config.artifacts.clone());
    let failed = |e: std::io::Error| format!("{} cannot be written: {e}", to.display());
    if to.exists() {
        return Err(format!("{} is there already: name a new folder", to.display()));
    }
    private::folder(to).map_err(failed)?;
    let file = to.join("fleet.db");
    private::file(&file).map_err(failed)?;
    store.copy_to(&file).await.map_err(|e| format!("the database was not copied: {e}"))?;
    for (from, name) in [(Path::new(&config.artifacts), "artifacts"), (config.keys.as_path(), "keys")] {
        if from.is_dir() && !(bucket.is_some() && name == "artifacts") {
            copy(from, &to.join(name)).map_err(failed)?;
        }
    }
    Ok(bucket)
}

/// Puts a backup into an empty folder.
///
/// # Errors
/// When the folder is not empty, or something could not be read or written.
pub fn restore(from: &Path, to: &Path) -> Result<(), String> {
    if !from.join("fleet.db").is_file() {
        return Err(format!("{} is no backup: it has no fleet.db", from.display()));
    }
    if to.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty: move it away first", to.display()));
    }
    copy(from, to).map_err(|e| format!("{} was not restored: {e}", from.display()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    private::folder(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let copied = match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            Ok(_) => copy_file(&entry.path(), &target),
            Err(error) => Err(error),
        };
        match copied {
            // An upload that was on its way to its own name. What the database names stays.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !entry.path().exists() => {}
            other => other?,
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    private::file(to)?;
    std::fs::File::open(to)?.sync_all()
}
