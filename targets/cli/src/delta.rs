//! `dunlin delta`: an update as the difference of two packages.

use dunlin::Block;
use dunlin_update::delta::{EncodeError, EncodeOptions, Encoded, MAX_BLOCK, encode};
use serde_json::json;

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::table::{grouped, table};
use crate::trust::hex;

/// Creates a patch from one package to another; it is decoded once before it is written.
#[derive(clap::Args, Clone, Debug)]
pub struct Delta {
    /// Package that devices have
    pub base: String,
    /// Package to update to
    pub new: String,
    /// Patch to write
    #[arg(short, long, value_name = "OUT.patch")]
    pub output: String,
    /// Bytes between resume points; fewer make a larger patch
    #[arg(long, default_value_t = MAX_BLOCK, value_parser = clap::value_parser!(u32).range(1024..=i64::from(MAX_BLOCK)))]
    pub block: u32,
    /// Print the operation for each tensor
    #[arg(long)]
    pub regions: bool,
}

impl Delta {
    /// Does it.
    ///
    /// # Errors
    /// Names the file that is no package; nothing is written then.
    pub fn run(&self, json: bool) -> Outcome<()> {
        // Packages are read in place, and that needs aligned bytes.
        let (base, new) = (Block::from(&model::read(&self.base)?[..]), Block::from(&model::read(&self.new)?[..]));
        let bar = model::spinner("comparing");
        let encoded = encode(Some(&base), &new, &EncodeOptions { block: self.block });
        bar.finish_and_clear();
        let Encoded { patch, regions } = encoded.map_err(|error| match &error {
            EncodeError::Package { which: "base", error } => Failure::package(&self.base, &base, error),
            EncodeError::Package { error, .. } => Failure::package(&self.new, &new, error),
            EncodeError::TooLarge => Failure::damaged(&self.new, &error),
            EncodeError::Fault => Failure::new(Code::Internal, error.to_string()),
        })?;
        model::write(&self.output, &patch)?;
        let share = 100.0 * patch.len() as f64 / new.len().max(1) as f64;
        if json {
            let regions: Vec<_> = regions
                .iter()
                .map(|r| json!({"name": r.name, "operation": r.operation, "bytes": r.bytes, "patch_bytes": r.patch_bytes}))
                .collect();
            let base = dunlin::package::compute_digest(&base).map(|d| hex(&d)).unwrap_or_default();
            println!(
                "{}",
                json!({"patch": self.output, "bytes": patch.len(), "package_bytes": new.len(), "base": base,
                "regions": regions})
            );
            return Ok(());
        }
        let (bytes, whole) = (grouped(patch.len() as u64), grouped(new.len() as u64));
        println!("{}  {bytes} bytes, {share:.1} % of the package's {whole}", self.output);
        if self.regions {
            let mut rows = vec![["part", "bytes", "in patch", "operation"].map(str::to_owned).to_vec()];
            rows.extend(regions.into_iter().map(|r| {
                let (bytes, patch_bytes) = (grouped(r.bytes as u64), grouped(r.patch_bytes as u64));
                vec![r.name, bytes, patch_bytes, r.operation.to_owned()]
            }));
            print!("{}", table(&rows, &[1, 2]));
        }
        Ok(())
    }
}
