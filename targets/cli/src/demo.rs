//! `dunlin demo`: models compiled and scored, then a fleet in this process that gets a better model, and is kept from a bad
//! one.

mod models;
mod story;
mod tell;
mod world;

use serde_json::json;

use crate::failure::{Code, Failure, Outcome};
use story::Story;
use world::World;

/// Scores the bundled models, then rolls a good and a bad version out to a simulated fleet.
///
/// The server is the real one, on this machine alone and with a clock that is set forward. The devices are simulated: engine,
/// updates, trials, signatures, reports and images are real; their latencies are drawn and their days pass in moments.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Demo {
    /// Score the models only
    #[arg(long)]
    models: bool,
    /// Number of devices
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(80..=2000))]
    devices: u32,
    /// Random seed for keys, images and times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the dashboard running afterwards, until Ctrl-C
    #[arg(long, conflicts_with = "models")]
    serve: bool,
}

impl Demo {
    /// Does it.
    ///
    /// # Errors
    /// [`Code::Differs`] when a model is not as in ONNX Runtime, or the story does not go as it should.
    pub fn run(self, json: bool) -> Outcome<()> {
        let (mut record, verdict) = models::run(json)?;
        if self.models || verdict.is_err() {
            if json {
                println!("{record}");
            }
            return verdict;
        }
        let world = World::start(self.devices, self.seed)?;
        tell::beginning(json, &world, self.seed, self.serve);
        let mut story = Story::new(world, json);
        let told = story.go();
        // What happened until then is worth seeing, whatever it came to.
        let summary = story.summary()?;
        if json {
            record["story"] = summary;
            record["failure"] = json!(told.as_ref().err().map(|f| &f.text));
        } else {
            tell::end(&summary, self.serve);
        }
        if json {
            println!("{record}");
        }
        if self.serve {
            story.into_world().serve(json)?;
        }
        told.map_err(|f| match f.code {
            Code::Differs => {
                Failure::new(Code::Differs, format!("the demo did not reach the expected result: {}", f.text))
            }
            _ => f,
        })
    }
}

#[cfg(test)]
mod tests;
