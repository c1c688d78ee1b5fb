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

/// Compiles the repository's models and scores them on real test data; then starts a fleet server and simulated devices that
/// really run a model, rolls a better version out to all of them, and a bad one that has to be caught and taken back.
///
/// The server is the real one, on this machine alone and with a clock that is set forward. The devices are simulated: engine,
/// updates, trials, signatures, reports and images are real; their latencies are drawn and their days pass in moments.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Demo {
    /// Only the models
    #[arg(long)]
    models: bool,
    /// Devices
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(80..=2000))]
    devices: u32,
    /// Draws the same each time: keys, images, moments. Who is in which cohort is drawn by the server's secret
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Go on serving afterwards, so that the dashboard can be looked at, until Ctrl-C
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
            Code::Differs => Failure::new(Code::Differs, format!("the story did not go as it should: {}", f.text)),
            _ => f,
        })
    }
}

#[cfg(test)]
mod tests;
