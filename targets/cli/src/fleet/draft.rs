//! What a rollout is to be, from arguments.

use serde_json::{Value, json};

use super::client::Client;
use super::publish::census;
use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::trust::hex;

/// What is rolled out, and how.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Draft {
    /// What devices are to run: a digest or its beginning, NAME@VERSION, or a package's file; several with variants
    #[arg(long, value_name = "PACKAGE")]
    pub(super) candidate: Vec<String>,
    /// What devices run that take part, and go back to; what most of them run when absent, `none` for no way back
    #[arg(long, value_name = "PACKAGE", requires = "candidate")]
    pub(super) base: Option<String>,
    /// Devices that confirm the candidate cannot go back to the base, whose security counter is lower; it has to be said
    /// where it is so
    #[arg(long, requires = "candidate")]
    pub(super) irreversible: bool,
    /// canary, ring:RINGS, few:RINGS, variants:PERCENT, hold-back:PERCENT, or stages:FILE with a list of stages in JSON
    #[arg(long, default_value = "canary", value_parser = strategy)]
    pub(super) strategy: String,
    /// Probability for each guardrail of taking a candidate back that is no worse; 0.01 when absent
    #[arg(long)]
    pub(super) alpha: Option<f64>,
    /// Guardrails that need data, with commas between: crash, failed_start, inference_error, deadline_miss, silence; all
    /// when absent
    #[arg(long, value_delimiter = ',')]
    pub(super) require: Vec<String>,
    /// How much worse than the control cohort a metric may be: latency_p95=10% or confidence=0.02; may be given several
    /// times
    #[arg(long, value_name = "METRIC=AMOUNT", value_parser = margin)]
    pub(super) margin: Vec<Value>,
    /// All of it as the server takes it, in a file of JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["candidate", "base", "irreversible", "alpha", "require", "margin"])]
    pub(super) file: Option<String>,
}

fn kind(text: &str) -> Option<(&str, Option<f64>)> {
    let (kind, number) = text.split_once(':').map_or((text, None), |(kind, number)| (kind, Some(number)));
    let number = match number {
        Some(number) => Some(number.parse::<f64>().ok().filter(|n| n.is_finite())?),
        None => None,
    };
    let fits = match kind {
        "canary" => number.is_none(),
        "ring" | "few" => number.is_some_and(|n| n.fract() == 0.0 && (0.0..=255.0).contains(&n)),
        "variants" | "hold-back" => number.is_some_and(|n| (0.0..=100.0).contains(&n)),
        _ => false,
    };
    fits.then_some((kind, number))
}

fn strategy(text: &str) -> Result<String, String> {
    let known = kind(text).is_some() || text.strip_prefix("stages:").is_some_and(|file| !file.is_empty());
    let all = "canary, ring:RINGS, few:RINGS, variants:PERCENT, hold-back:PERCENT, stages:FILE";
    if known { Ok(text.to_owned()) } else { Err(format!("it is one of {all}")) }
}

fn margin(text: &str) -> Result<Value, String> {
    let wrong = || "write it as METRIC=10% or METRIC=AMOUNT".to_owned();
    let (metric, amount) = text.split_once('=').ok_or_else(wrong)?;
    let (key, amount, scale) = match amount.strip_suffix('%') {
        Some(percent) => ("relative", percent, 0.01),
        None => ("absolute", amount, 1.0),
    };
    let amount = amount.trim().parse::<f64>().ok().filter(|a| a.is_finite()).ok_or_else(wrong)? * scale;
    // Of what is measured only confidence is better when it is higher.
    Ok(json!({ "metric": metric, "higher_is_better": metric == "confidence", key: amount }))
}

fn read(path: &str) -> Outcome<Value> {
    let bytes = model::read(path)?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::damaged(path, format!("is no JSON: {e}")))
}

/// The digest that a person means by a file, a name with a version, or the beginning of a digest.
///
/// # Errors
/// When it is none, or more than one.
pub(super) fn digest(client: &Client, text: &str) -> Outcome<String> {
    if std::path::Path::new(text).is_file() {
        let bytes = dunlin::Block::from(&model::read(text)?[..]);
        let opened = dunlin::Package::open(&bytes).map_err(|e| Failure::damaged(text, e))?;
        return Ok(hex(&opened.digest()));
    }
    let all = client.all("/v1/packages", "digest", usize::MAX)?;
    let field = |p: &Value, key: &str| p[key].as_str().unwrap_or_default().to_owned();
    let is = |p: &&Value| match text.split_once('@') {
        Some((name, version)) => p["name"] == name && p["version"] == version,
        None => text.len() >= 4 && field(p, "digest").starts_with(text),
    };
    let found: Vec<&Value> = all.iter().filter(is).collect();
    if let [one] = found[..] {
        return Ok(field(one, "digest"));
    }
    let shown = |p: &&Value| {
        let digest = field(p, "digest");
        let start = digest.get(..12).unwrap_or_default().to_owned();
        format!("{start} ({}@{}, release {})", field(p, "name"), field(p, "version"), p["number"])
    };
    let (text, hint) = if found.is_empty() {
        let newest: Vec<String> = all.iter().take(8).map(|p| shown(&p)).collect();
        let there =
            if newest.is_empty() { "nothing is published: `dunlin fleet publish`".into() } else { newest.join(", ") };
        (format!("no published package is '{text}'"), there)
    } else {
        let these: Vec<String> = found.iter().map(shown).collect();
        (format!("'{text}' may mean {} packages", found.len()), these.join(", "))
    };
    Err(Failure::new(Code::Usage, format!("{text}\n  hint: {hint}")))
}

impl Draft {
    /// Whether it says anything.
    #[must_use]
    pub(super) fn is_given(&self) -> bool {
        self.file.is_some() || !self.candidate.is_empty()
    }

    /// The body that the server takes.
    ///
    /// # Errors
    /// Names the package or file that there is not.
    pub(super) fn body(&self, client: &Client) -> Outcome<Value> {
        if let Some(path) = &self.file {
            return read(path);
        }
        let candidates: Vec<String> = self.candidate.iter().map(|c| digest(client, c)).collect::<Outcome<_>>()?;
        let base = match self.base.as_deref() {
            Some("none") => None,
            Some(text) => Some(digest(client, text)?),
            None => self.most_run(client, &candidates)?,
        };
        let strategy = match (self.strategy.strip_prefix("stages:"), kind(&self.strategy)) {
            (Some(path), _) => json!({ "kind": "stages", "stages": read(path)? }),
            (_, Some(("ring", Some(n)))) => json!({ "kind": "ring", "rings": n as u8 }),
            (_, Some(("few", Some(n)))) => json!({ "kind": "few", "rings": n as u8 }),
            (_, Some(("variants", n))) => json!({ "kind": "variants", "percent": n }),
            (_, Some(("hold-back", n))) => json!({ "kind": "hold_back", "percent": n }),
            _ => json!({ "kind": "canary" }),
        };
        let mut gate = json!({ "margins": self.margin });
        if let Some(alpha) = self.alpha {
            gate["alpha"] = json!(alpha);
        }
        if !self.require.is_empty() {
            gate["required"] = json!(self.require);
        }
        let mut body = json!({ "candidates": candidates, "base": base, "strategy": strategy, "gate": gate });
        if self.irreversible {
            body["irreversible"] = json!(true);
        }
        Ok(body)
    }

    /// The published package that most devices of the candidates' model run.
    fn most_run(&self, client: &Client, candidates: &[String]) -> Outcome<Option<String>> {
        let Some(first) = candidates.first() else { return Ok(None) };
        let package = client.get(&format!("/v1/packages/{first}"))?;
        let runs = census(client, package["name"].as_str().unwrap_or_default())?;
        let mut runs: Vec<(String, f64)> = runs.into_iter().filter(|(d, _)| !candidates.contains(d)).collect();
        runs.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (digest, _) in runs {
            if client.find(&format!("/v1/packages/{digest}"))?.is_some() {
                return Ok(Some(digest));
            }
        }
        let text = "no device runs a published package that it could go back to\n  hint: publish what devices run, or say `--base none`";
        Err(Failure::new(Code::Usage, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_and_margins_are_read() {
        for good in ["canary", "ring:3", "few:9", "variants:12.5", "hold-back:5", "stages:s.json"] {
            assert!(strategy(good).is_ok(), "{good}");
        }
        for bad in
            ["", "ring", "ring:1.5", "ring:300", "canary:1", "variants:101", "hold-back:-1", "stages:", "x", "few:inf"]
        {
            assert!(strategy(bad).is_err(), "{bad}");
        }
        let read = margin("latency_p95=10%").expect("a margin");
        assert_eq!((&read["relative"], &read["higher_is_better"]), (&json!(0.1), &json!(false)));
        let read = margin("confidence=0.02").expect("a margin");
        assert_eq!((&read["absolute"], &read["higher_is_better"]), (&json!(0.02), &json!(true)));
        assert!(margin("latency_p95").is_err() && margin("a=b").is_err() && margin("a=inf").is_err());
    }
}
