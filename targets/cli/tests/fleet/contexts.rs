//! Several servers: contexts, and what a token is.

use std::io::Write as _;
use std::process::Stdio;

use dunlin_fleet::unhex;
use serde_json::json;

use super::site::Site;

fn login(site: &Site, url: &str, token: &str, name: Option<&str>) {
    let mut arguments = vec!["fleet", "login", url];
    arguments.extend(name.iter().flat_map(|name| ["--name", name]));
    // The profile is that of `site`, whichever server it is for.
    let mut child = site.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("dunlin runs");
    writeln!(child.stdin.take().expect("a pipe"), "{token}").expect("written");
    assert!(child.wait_with_output().expect("ends").status.success());
}

#[test]
fn several_servers_have_names() {
    let (site, other) = (Site::start(), Site::start());
    login(&site, &site.url, &site.admin, None);
    login(&site, &other.url, &other.admin, Some("staging"));
    let listed = site.json(&["fleet", "contexts"]);
    let staging = json!({ "name": "staging", "url": other.url, "current": true });
    assert_eq!(listed, json!([{ "name": "default", "url": site.url, "current": false }, staging]));
    let whoami = site.json(&["fleet", "whoami"]);
    assert_eq!((&whoami["url"], &whoami["role"]), (&json!(other.url), &json!("admin")), "{whoami}");
    assert_eq!((&whoami["name"], &whoami["tenant"]), (&json!("alice"), &json!("system")), "{whoami}");
    // The command line goes before the environment, and that before what is current.
    assert_eq!(site.json(&["fleet", "--context", "default", "whoami"])["url"], site.url.as_str());
    assert_eq!(site.json(&["fleet", "whoami", "--context", "default"])["url"], site.url.as_str());
    let output = site.command(&["fleet", "whoami"]).env("DUNLIN_FLEET_CONTEXT", "default").output().expect("runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&site.url));
    let output = site
        .command(&["fleet", "--context", "staging", "whoami"])
        .env("DUNLIN_FLEET_URL", "http://127.0.0.1:9")
        .env("DUNLIN_FLEET_TOKEN", "dnl_0")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("'alice' (admin) of 'system'") && text.contains(&other.url), "{text}");

    assert!(site.succeeds(&["fleet", "use", "default"]).contains(&site.url));
    assert_eq!(site.json(&["fleet", "whoami"])["url"], site.url.as_str());
    let (code, text) = site.fails(&["fleet", "use", "production"]);
    assert!(code == 2 && text.contains("default, staging"), "{text}");
    let text = site.succeeds(&["fleet", "logout"]);
    assert!(text.contains("stays valid") && text.contains("dunlin fleet use"), "{text}");
    let (code, text) = site.fails(&["fleet", "devices"]);
    assert!(code == 2 && text.contains("staging"), "{text}");
    site.succeeds(&["fleet", "logout", "staging"]);
    assert_eq!(site.json(&["fleet", "contexts"]), json!([]));
    let kept = std::fs::read_to_string(site.path("profile.json")).expect("a file");
    assert!(!kept.contains("dnl_"), "{kept}");
}

#[test]
fn a_profile_of_before_is_used_and_kept() {
    let site = Site::start();
    let old = json!({ "url": site.url, "token": site.admin });
    std::fs::write(site.path("profile.json"), old.to_string()).expect("written");
    assert_eq!(site.json(&["fleet", "whoami"])["name"], "alice");
    assert_eq!(site.json(&["fleet", "contexts"])[0]["name"], "default");
    // Another server is added to it.
    let other = Site::start();
    login(&site, &other.url, &other.admin, Some("other"));
    assert_eq!(site.json(&["fleet", "--context", "default", "whoami"])["url"], site.url.as_str());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(site.path("profile.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn short_digests_are_enough_or_an_error() {
    let site = Site::start();
    site.login();
    let (keys, one, _) = site.packages();
    let published = site.json(&["fleet", "publish", &one, "--keys", &keys]);
    let digest = published["package"]["digest"].as_str().expect("a digest").to_owned();
    let running: [u8; 32] = unhex(&digest).expect("hex").try_into().expect("32 bytes");
    let id = site.device(1, running);
    // What nobody published is found as well: devices run it.
    let mut factory = [0xAB; 32];
    site.device(2, factory);
    factory[31] = 1;
    site.device(3, factory);
    let count = |running: &str| site.json(&["fleet", "devices", "--running", running]).as_array().map(Vec::len);
    assert_eq!(count(&digest), Some(1));
    assert_eq!(count(&digest[..12]), Some(1));
    assert_eq!(count(&digest[..6].to_uppercase()), Some(1));
    assert_eq!(count("digits@1"), Some(1));
    assert_eq!(count(&one), Some(1));
    assert_eq!(count(&"ab".repeat(32)), Some(1));
    let (code, text) = site.fails(&["fleet", "devices", "--running", "abababab"]);
    assert!(code == 8 && text.contains("ambiguous") && text.contains(&"ab".repeat(32)), "{text}");
    let (code, text) = site.fails(&["fleet", "devices", "--running", "00000000"]);
    assert!(code == 8 && text.contains("dunlin fleet packages") && !text.contains("GET /v1"), "{text}");
    let (code, text) = site.fails(&["fleet", "devices", "--running", "ab"]);
    assert!(code == 2 && text.contains("6 or more digits"), "{text}");
    let (code, text) = site.fails(&["fleet", "packages", &digest[..5]]);
    assert!(code == 2 && text.contains("6 or more digits"), "{text}");
    // Devices by the first digits of their id.
    assert_eq!(site.json(&["fleet", "devices", &id[..10]])["device"]["id"], id.as_str());
    let (code, text) = site.fails(&["fleet", "devices", "00000000ffff"]);
    assert!(code == 8 && text.contains("`dunlin fleet devices`"), "{text}");
    let (code, text) = site.fails(&["fleet", "rollout", "status", "nowhere"]);
    assert!(code == 8 && text.contains("`dunlin fleet rollout status`"), "{text}");
}

#[test]
fn names_of_the_server_are_completed() {
    let site = Site::start();
    site.login();
    let (keys, one, _) = site.packages();
    site.succeeds(&["fleet", "publish", &one, "--keys", &keys]);
    let complete = |words: &[&str]| {
        let mut command = site.command(&[]);
        let output = command.arg("--").args(words).env("COMPLETE", "fish").output().expect("runs");
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(complete(&["dunlin", "fleet", "packages", "dig"]).contains("digits@1"));
    assert!(complete(&["dunlin", "fleet", "rollout", "plan", "--candidate", ""]).contains("digits@1"));
    assert!(complete(&["dunlin", "fleet", "tokens", "revoke", "al"]).contains("alice"));
    assert!(complete(&["dunlin", "fleet", "use", ""]).contains("default"));
}
