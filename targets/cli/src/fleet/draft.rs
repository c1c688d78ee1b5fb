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
    /// Package to roll out: digest, NAME@VERSION or file; repeatable
    #[arg(long, value_name = "PACKAGE")]
    pub(super) candidate: Vec<String>,
    /// Package to replace and roll back to, or 'none' [default: most run]
    #[arg(long, value_name = "PACKAGE", requires = "candidate")]
    pub(super) base: Option<String>,
    /// Accept that devices cannot roll back (lower security counter)
    #[arg(long, requires = "candidate")]
    pub(super) irreversible: bool,
    /// Strategy of the rollout:
    ///   canary               laboratory, 1 %, 5 %, 25 %, all but 5 %
    ///   shadow:EVERY         shadow mode on one of EVERY inputs first, then canary
    ///   ring:RINGS           ring by ring, a tenth of each as control
    ///   few:RINGS            ring by ring, for fleets too small for statistics
    ///   crossover:PERCENT    alternates hourly with the base on PERCENT of the devices, until approved
    ///   variants:PERCENT     several candidates on PERCENT of the devices, until one is approved
    ///   blue-green:PERCENT   shadow mode on all but PERCENT, serves there at once when approved
    ///   hold-back:PERCENT    at once on all but PERCENT of the devices
    ///   stages:FILE          custom stages, a list in JSON
    #[arg(long, default_value = "canary", value_parser = strategy, verbatim_doc_comment)]
    pub(super) strategy: String,
    /// False rollback probability of each guardrail [default: 0.01]
    #[arg(long)]
    pub(super) alpha: Option<f64>,
    /// Guardrails that need data [default: all]
    ///
    /// With commas between: crash, failed_start, inference_error, deadline_miss, silence.
    #[arg(long, value_delimiter = ',')]
    pub(super) require: Vec<String>,
    /// Allowed loss against control: latency_p95=10%; repeatable
    #[arg(long, value_name = "METRIC=AMOUNT", value_parser = margin)]
    pub(super) margin: Vec<Value>,
    /// Expected devices of both arms at the decision [default: 1000]
    #[arg(long, value_name = "DEVICES")]
    pub(super) devices: Option<u32>,
    /// Devices that each arm needs for a margin [default: 200]
    #[arg(long, value_name = "DEVICES")]
    pub(super) devices_per_arm: Option<u32>,
    /// Whole request as JSON, as the server takes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["candidate", "base", "irreversible", "strategy", "alpha", "require", "margin", "devices", "devices_per_arm"])]
    pub(super) file: Option<String>,
}

/// The strategies that are a name with a number, their names for the server, and what it calls the number.
const KINDS: [(&str, &str, &str); 7] = [
    ("shadow", "shadow", "every"),
    ("ring", "ring", "rings"),
    ("few", "few", "rings"),
    ("crossover", "crossover", "percent"),
    ("variants", "variants", "percent"),
    ("blue-green", "blue_green", "percent"),
    ("hold-back", "hold_back", "percent"),
];

/// A strategy as the server takes it; not for one of a file.
fn kind(text: &str) -> Option<Value> {
    let Some((name, number)) = text.split_once(':') else {
        return (text == "canary").then(|| json!({ "kind": "canary" }));
    };
    let (_, kind, key) = KINDS.into_iter().find(|(n, ..)| *n == name)?;
    let number = match key {
        "percent" => json!(number.parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n))?),
        "rings" => json!(number.parse::<u8>().ok()?),
        _ => json!(number.parse::<u32>().ok().filter(|n| *n > 0)?),
    };
    Some(json!({ "kind": kind, key: number }))
}

fn strategy(text: &str) -> Result<String, String> {
    let known = kind(text).is_some() || text.strip_prefix("stages:").is_some_and(|file| !file.is_empty());
    if known {
        return Ok(text.to_owned());
    }
    let all: Vec<String> = KINDS.iter().map(|(name, _, key)| format!("{name}:{}", key.to_uppercase())).collect();
    Err(format!("it is one of canary, {}, stages:FILE", all.join(", ")))
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

/// Fewest digits of a digest that stand for all of it.
pub(super) const SHORTEST_DIGEST: usize = 6;

/// The digest that a person means by a file, a name with a version, or the beginning of a digest.
///
/// # Errors
/// When it is none, or more than one.
pub(super) fn digest(client: &Client, text: &str) -> Outcome<String> {
    if std::path::Path::new(text).is_file() {
        let bytes = dunlin::Block::from(&model::read(text)?[..]);
        let opened = dunlin::Package::open(&bytes).map_err(|e| Failure::package(text, &bytes, e))?;
        return Ok(hex(&opened.digest()));
    }
    let all = client.all("/v1/packages", "digest", usize::MAX)?;
    let field = |p: &Value, key: &str| p[key].as_str().unwrap_or_default().to_owned();
    let is = |p: &&Value| match text.split_once('@') {
        Some((name, version)) => p["name"] == name && p["version"] == version,
        None => text.len() >= SHORTEST_DIGEST && field(p, "digest").starts_with(&text.to_lowercase()),
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
        let short = text.len() < SHORTEST_DIGEST && text.bytes().all(|b| b.is_ascii_hexdigit());
        let why = if short { format!(" ({SHORTEST_DIGEST} or more digits of a digest)") } else { String::new() };
        (format!("no published package is '{text}'{why}"), there)
    } else {
        let these: Vec<String> = found.iter().map(shown).collect();
        (format!("'{text}' is ambiguous: {} packages", found.len()), these.join(", "))
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
        let strategy = match self.strategy.strip_prefix("stages:") {
            Some(path) => json!({ "kind": "stages", "stages": read(path)? }),
            None => kind(&self.strategy).unwrap_or_else(|| json!({ "kind": "canary" })),
        };
        let mut gate = json!({ "margins": self.margin });
        if let Some(alpha) = self.alpha {
            gate["alpha"] = json!(alpha);
        }
        if !self.require.is_empty() {
            gate["required"] = json!(self.require);
        }
        if let Some(devices) = self.devices {
            gate["devices"] = json!(devices);
        }
        if let Some(devices) = self.devices_per_arm {
            gate["devices_per_arm"] = json!(devices);
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
        for (good, sent) in [
            ("canary", json!({ "kind": "canary" })),
            ("ring:3", json!({ "kind": "ring", "rings": 3 })),
            ("few:9", json!({ "kind": "few", "rings": 9 })),
            ("shadow:16", json!({ "kind": "shadow", "every": 16 })),
            ("crossover:10", json!({ "kind": "crossover", "percent": 10.0 })),
            ("variants:12.5", json!({ "kind": "variants", "percent": 12.5 })),
            ("blue-green:5", json!({ "kind": "blue_green", "percent": 5.0 })),
            ("hold-back:5", json!({ "kind": "hold_back", "percent": 5.0 })),
        ] {
            assert_eq!((strategy(good), kind(good)), (Ok(good.to_owned()), Some(sent)), "{good}");
        }
        assert!(strategy("stages:s.json").is_ok());
        for bad in [
            "",
            "ring",
            "ring:1.5",
            "ring:300",
            "canary:1",
            "variants:101",
            "hold-back:-1",
            "stages:",
            "x",
            "few:inf",
            "shadow",
            "shadow:0",
            "crossover:NaN",
            "blue_green:5",
            "blue-green",
        ] {
            assert!(strategy(bad).is_err(), "{bad}");
        }
        let said = strategy("x").expect_err("none");
        assert!(said.contains("crossover:PERCENT") && said.contains("shadow:EVERY"), "{said}");
        let read = margin("latency_p95=10%").expect("a margin");
        assert_eq!((&read["relative"], &read["higher_is_better"]), (&json!(0.1), &json!(false)));
        let read = margin("confidence=0.02").expect("a margin");
        assert_eq!((&read["absolute"], &read["higher_is_better"]), (&json!(0.02), &json!(true)));
        assert!(margin("latency_p95").is_err() && margin("a=b").is_err() && margin("a=inf").is_err());
    }
}
