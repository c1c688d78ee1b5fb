//! `dunlin fleet flags set`: one flag, from arguments.

use serde_json::{Map, Value, json};

use super::{all, put};
use crate::failure::{Code, Failure, Outcome};
use crate::fleet::client::Client;

/// Creates or changes one flag.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Conditions: =, !=, in A, B, 1..9, >= VERSION, < VERSION, is known; joined by `and`.
The first rule that matches decides. `dunlin.model` is the model that a device runs.")]
pub(super) struct Set {
    /// Its key
    key: String,
    /// Turn it on where no rule matches
    #[arg(long, conflicts_with_all = ["off", "value"])]
    on: bool,
    /// Turn it off where no rule matches
    #[arg(long, conflicts_with = "value")]
    off: bool,
    /// Give this variant or value where no rule matches
    #[arg(long, value_name = "VALUE")]
    value: Option<String>,
    /// Name a value; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    variant: Vec<String>,
    /// Add a rule; repeatable, together they replace those before
    #[arg(long, value_name = "CONDITION -> VARIANT", conflicts_with = "percent")]
    rule: Vec<String>,
    /// Give it to so many percent of the devices only
    #[arg(long, value_name = "PERCENT")]
    percent: Option<f64>,
    /// Show what would change and for whom, store nothing
    #[arg(long)]
    dry_run: bool,
}

fn usage(what: String, hint: &str) -> Failure {
    Failure::new(Code::Usage, format!("{what}\n  hint: {hint}"))
}

/// A value: JSON where it is a scalar of JSON, text otherwise.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => value,
        _ => json!(text),
    }
}

impl Set {
    /// Sets it.
    ///
    /// # Errors
    /// [`Code::Usage`] when the arguments name no variant; passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let mut flags = client.get("/v1/flags")?;
        let known = all(&flags).iter().position(|f| f["key"] == self.key.as_str());
        let flag = self.flag(known.map_or(&Value::Null, |at| &flags["flags"][at]))?;
        match (known, flags["flags"].as_array_mut()) {
            (Some(at), Some(list)) => list[at] = flag,
            (None, Some(list)) => list.push(flag),
            (_, None) => return Err(Failure::new(Code::Unreachable, "the server's flags are no list")),
        }
        put(client, &flags, self.dry_run, json)
    }

    /// The flag as it shall be, from what it is.
    fn flag(&self, known: &Value) -> Outcome<Value> {
        let mut flag = if known.is_object() { known.clone() } else { json!({ "key": self.key, "variants": {} }) };
        let mut variants = flag["variants"].as_object().cloned().unwrap_or_default();
        for pair in &self.variant {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| usage(format!("'{pair}' is no variant"), "write --variant NAME=VALUE"))?;
            variants.insert(name.to_owned(), scalar(value));
        }
        let default = self.default(&mut variants)?;
        if variants.is_empty() {
            return Err(usage(format!("the flag '{}' has no values", self.key), "say --on, --off or --value VALUE"));
        }
        if variants.values().all(Value::is_boolean) && flag["off"].is_null() && variants.contains_key("off") {
            flag["off"] = json!("off");
        }
        match (self.percent, default) {
            (Some(percent), Some(chosen)) => {
                let other = other(&variants, &chosen)?;
                let rest = 100.0 - percent;
                let split = json!([{ "variant": chosen, "percent": percent }, { "variant": other, "percent": rest }]);
                flag["rules"] = json!([{ "serve": { "split": split } }]);
                flag["default"] = json!(other);
            }
            (Some(_), None) => {
                return Err(usage("--percent does not say of what".to_owned(), "say --on, --off or --value VALUE too"));
            }
            (None, Some(chosen)) => flag["default"] = json!(chosen),
            (None, None) => {}
        }
        if !self.rule.is_empty() {
            flag["rules"] = json!(self.rule);
        }
        flag["variants"] = Value::Object(variants);
        Ok(flag)
    }

    /// The name of the variant that was chosen, which is added when it is a value of its own.
    fn default(&self, variants: &mut Map<String, Value>) -> Outcome<Option<String>> {
        if self.on || self.off {
            for (name, value) in [("on", true), ("off", false)] {
                if !variants.values().any(|v| *v == json!(value)) {
                    variants.insert(name.to_owned(), json!(value));
                }
            }
            return Ok(variants.iter().find(|(_, v)| **v == json!(self.on)).map(|(name, _)| name.clone()));
        }
        let Some(value) = &self.value else { return Ok(None) };
        if variants.contains_key(value) {
            return Ok(Some(value.clone()));
        }
        let wanted = scalar(value);
        if let Some((name, _)) = variants.iter().find(|(_, v)| **v == wanted) {
            return Ok(Some(name.clone()));
        }
        variants.insert(value.clone(), wanted);
        Ok(Some(value.clone()))
    }
}

/// The only other variant.
fn other(variants: &Map<String, Value>, chosen: &str) -> Outcome<String> {
    let mut others = variants.keys().filter(|name| *name != chosen);
    match (others.next(), others.next()) {
        (Some(other), None) => Ok(other.clone()),
        _ => Err(usage(
            format!("--percent needs two variants, there are {}", variants.len()),
            "write the split as a rule: --rule '-> a 20%, b 30%, c 50%'",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str) -> Set {
        Set {
            key: key.to_owned(),
            on: false,
            off: false,
            value: None,
            variant: Vec::new(),
            rule: Vec::new(),
            percent: None,
            dry_run: false,
        }
    }

    #[test]
    fn flags_are_made_from_arguments() {
        let new = Set { on: true, percent: Some(20.0), ..set("a") }.flag(&Value::Null).expect("a flag");
        assert_eq!(
            new,
            json!({ "key": "a", "variants": { "on": true, "off": false }, "off": "off", "default": "off", "rules": [
                { "serve": { "split": [{ "variant": "on", "percent": 20.0 }, { "variant": "off", "percent": 80.0 }] } }] })
        );
        let changed = Set { off: true, ..set("a") }.flag(&new).expect("a flag");
        assert_eq!((&changed["default"], &changed["rules"]), (&json!("off"), &new["rules"]), "rules are kept");
        let numbers = Set { variant: vec!["low=0.4".into(), "high=0.7".into()], value: Some("low".into()), ..set("t") };
        let numbers = numbers.flag(&Value::Null).expect("a flag");
        assert_eq!(numbers, json!({ "key": "t", "variants": { "low": 0.4, "high": 0.7 }, "default": "low" }));
        let text = Set { value: Some("eu".into()), ..set("t") }.flag(&Value::Null).expect("a flag");
        assert_eq!(text, json!({ "key": "t", "variants": { "eu": "eu" }, "default": "eu" }));
    }

    #[test]
    fn what_names_no_variant_is_refused() {
        assert!(set("a").flag(&Value::Null).is_err());
        assert!(Set { percent: Some(5.0), ..set("a") }.flag(&json!({ "variants": { "x": 1 } })).is_err());
        assert!(Set { value: Some("x".into()), percent: Some(5.0), ..set("a") }.flag(&Value::Null).is_err());
        assert!(Set { variant: vec!["x".into()], ..set("a") }.flag(&Value::Null).is_err());
    }
}
