//! `dunlin fleet tenant` and `dunlin fleet tenants`: what a tenant may have and wants.

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::view::{text, time};
use crate::failure::{Code, Failure, Outcome};
use crate::table::{grouped, table};

/// Shows the token's tenant, or changes its settings.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Tenant {
    /// Average poll interval of devices in seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    poll_seconds: Option<u32>,
    /// Require a second person to approve after the canary stage
    #[arg(long)]
    two_person: Option<bool>,
    /// URL that alerts are posted to as JSON, or 'none'
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

impl Tenant {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let mut wanted = serde_json::Map::new();
        for (key, value) in [
            ("poll_seconds", self.poll_seconds.map(Value::from)),
            ("two_person", self.two_person.map(Value::from)),
            ("webhook", self.webhook.as_deref().map(|url| if url == "none" { "" } else { url }.into())),
        ] {
            if let Some(value) = value {
                wanted.insert(key.into(), value);
            }
        }
        let tenant = if wanted.is_empty() {
            client.get("/v1/tenant")?
        } else {
            client.call("PUT", "/v1/tenant", &Value::Object(wanted))?
        };
        if json {
            println!("{tenant}")
        } else {
            print!("{}", shown(&[tenant]))
        }
        Ok(())
    }
}

/// Lists, creates and changes tenants. For administrators of the installation.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Tenants {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done with tenants.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// List tenants
    List,
    /// Create or change a tenant; other settings stay as they are
    Put {
        /// Identifier of the tenant
        tenant: String,
        /// Name of the tenant for people
        #[arg(long)]
        title: Option<String>,
        /// Setting; repeatable
        ///
        /// poll_seconds, two_person, max_devices, max_bytes, operator_rate, device_rate or webhook.
        #[arg(long, value_name = "SETTING=VALUE", value_parser = setting)]
        set: Vec<(String, Value)>,
    },
}

/// A setting: numbers and switches as such, the rest as text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write it as SETTING=VALUE")?;
    let value = match (key, value) {
        ("webhook", "none") => Value::Null,
        ("webhook", url) => url.into(),
        (_, other) => serde_json::from_str(other)
            .ok()
            .filter(|v: &Value| v.is_number() || v.is_boolean())
            .ok_or("the value is a number, or true or false")?,
    };
    Ok((key.to_owned(), value))
}

impl Tenants {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let all = client.get("/v1/tenants")?;
        let list = all.as_array().map_or(&[][..], Vec::as_slice);
        match &self.action {
            None | Some(Action::List) if json => println!("{all}"),
            None | Some(Action::List) => print!("{}", shown(list)),
            Some(Action::Put { tenant, title, set }) => {
                let known = list.iter().find(|t| t["id"] == tenant.as_str());
                if known.is_none() && title.is_none() {
                    let hint = "--title gives a new one its name for people";
                    let text = format!("there is no tenant '{tenant}' yet\n  hint: {hint}");
                    return Err(Failure::new(Code::Usage, text));
                }
                let mut settings = known.map_or(json!({}), |t| t["settings"].clone());
                for (key, value) in set {
                    settings[key] = value.clone();
                }
                let title = title.clone().unwrap_or_else(|| known.map_or("", |t| text(t, "title")).to_owned());
                let wanted = json!({ "title": title, "settings": settings });
                let made = client.call("PUT", &format!("/v1/tenants/{}", escaped(tenant)), &wanted)?;
                if json { println!("{made}") } else { print!("{}", shown(&[made])) }
            }
        }
        Ok(())
    }
}

fn shown(tenants: &[Value]) -> String {
    let heading =
        ["tenant", "", "since", "polls every", "devices", "bytes", "requests a second", "two people", "webhook"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for tenant in tenants {
        let settings = &tenant["settings"];
        let number = |key: &str| settings[key].as_u64().map_or_else(String::new, grouped);
        rows.push(vec![
            text(tenant, "id").into(),
            text(tenant, "title").into(),
            time(&tenant["created"]),
            format!("{} s", number("poll_seconds")),
            format!("at most {}", number("max_devices")),
            format!("at most {}", number("max_bytes")),
            format!("{} people's, {} devices'", number("operator_rate"), number("device_rate")),
            if settings["two_person"] == true { "yes" } else { "no" }.into(),
            settings["webhook"].as_str().unwrap_or("none").into(),
        ]);
    }
    table(&rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        assert_eq!(setting("poll_seconds=60"), Ok(("poll_seconds".into(), json!(60))));
        assert_eq!(setting("two_person=true"), Ok(("two_person".into(), json!(true))));
        assert_eq!(setting("webhook=https://x/y"), Ok(("webhook".into(), json!("https://x/y"))));
        assert_eq!(setting("webhook=none"), Ok(("webhook".into(), Value::Null)));
        assert!(setting("poll_seconds").is_err() && setting("poll_seconds=often").is_err());
    }
}
