//! `dunlin keys init` and `dunlin fleet root`: the server's key is recognised in both.

use super::site::Site;

/// The word after another one.
fn word_after<'t>(text: &'t str, before: &str) -> &'t str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}")).1;
    rest.split([' ', '\n', ',']).next().unwrap_or_default()
}

#[test]
fn the_key_that_was_given_is_recognised_and_root_keys_are_to_be_moved() {
    let site = Site::start();
    site.login();
    let key = site.succeeds(&["fleet", "root", "--key"]).trim().to_owned();
    assert_eq!(key.len(), 64, "{key}");
    let shown = site.succeeds(&["fleet", "root"]);
    assert_eq!(word_after(&shown, "the server signs rollouts with "), key);
    let identifier = word_after(&shown, "identifier ").to_owned();
    let folder = site.path("keys");
    let said = site.succeeds(&["keys", "init", &folder, "--rollout-key", &key]);
    assert_eq!(word_after(&said, "rollouts are signed by "), identifier, "{said}");
    assert_eq!(word_after(&said, "the key "), key, "{said}");
    // The file of each of three root keys is named, with where it should go.
    let roots = said.lines().find(|line| line.starts_with("root keys are ")).expect("root keys");
    let files: Vec<&str> = roots.split([' ', ',']).filter(|word| word.ends_with(".key")).collect();
    assert_eq!(files.len(), 3, "{said}");
    for file in files {
        assert!(std::path::Path::new(&folder).join(file).exists(), "{file}");
    }
    assert!(said.contains("offline"), "{said}");
    let own = site.succeeds(&["keys", "init", &site.path("other")]);
    assert!(!own.contains("rollouts are signed by "), "no key was given: {own}");
}
