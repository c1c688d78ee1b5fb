//! The floors: a crate imports only from those below it.

use std::collections::BTreeMap;
use std::process::Command;

/// Each crate's floor, and what it may import of ours on the same floor or below.
const FLOORS: &[(&str, &[&str])] = &[
    ("dunlin-kernels", &[]),
    ("dunlin-package", &[]),
    ("dunlin-engine", &["dunlin-kernels", "dunlin-package"]),
    ("dunlin-update", &["dunlin-package", "dunlin-rollout"]),
    ("dunlin-telemetry", &[]),
    ("dunlin-rollout", &[]),
    (
        "dunlin-device",
        &["dunlin-engine", "dunlin-kernels", "dunlin-package", "dunlin-rollout", "dunlin-telemetry", "dunlin-update"],
    ),
    ("dunlin-mcu", &["dunlin", "dunlin-device", "dunlin-telemetry", "dunlin-update"]),
    ("dunlin-compiler", &["dunlin-engine", "dunlin-kernels", "dunlin-package"]),
    ("dunlin-macros", &["dunlin-compiler", "dunlin-engine", "dunlin-kernels", "dunlin-package"]),
    (
        "dunlin",
        &[
            "dunlin-compiler",
            "dunlin-device",
            "dunlin-engine",
            "dunlin-kernels",
            "dunlin-macros",
            "dunlin-package",
            "dunlin-rollout",
            "dunlin-telemetry",
            "dunlin-update",
        ],
    ),
    ("dunlin-models", &[]),
    (
        "dunlin-cli",
        &[
            "dunlin",
            "dunlin-device",
            "dunlin-fleet",
            "dunlin-gateway",
            "dunlin-models",
            "dunlin-rollout",
            "dunlin-telemetry",
            "dunlin-update",
        ],
    ),
    ("dunlin-gateway", &["dunlin-device", "dunlin-engine", "dunlin-kernels", "dunlin-rollout", "dunlin-update"]),
    ("dunlin-fleet", &["dunlin-package", "dunlin-rollout", "dunlin-telemetry", "dunlin-update"]),
    (
        "dunlin-tests",
        &[
            "dunlin",
            "dunlin-cli",
            "dunlin-compiler",
            "dunlin-engine",
            "dunlin-kernels",
            "dunlin-mcu",
            "dunlin-models",
            "dunlin-package",
            "dunlin-rollout",
            "dunlin-telemetry",
            "dunlin-update",
        ],
    ),
];

/// The workspace's crates with the names of what they depend on, tests apart.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |package: &serde_json::Value| {
        let list = package["dependencies"].as_array().expect("dependencies");
        let names = list.iter().filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str().map(str::to_owned));
        (package["name"].as_str().expect("name").to_owned(), names.collect())
    };
    packages.iter().map(of).collect()
}

#[test]
fn crates_import_only_from_lower_floors() {
    let crates = dependencies();
    for (name, depends) in &crates {
        let (_, allowed) = FLOORS
            .iter()
            .find(|(n, _)| n == name)
            .unwrap_or_else(|| panic!("{name} has no floor: give it one in tests/tests/layering.rs"));
        for dependency in depends.iter().filter(|d| crates.contains_key(*d)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not import {dependency}");
        }
    }
}

#[test]
fn only_the_compiler_links_tract() {
    for (name, depends) in dependencies() {
        let tract = depends.iter().any(|d| d.starts_with("tract"));
        assert!(!tract || name == "dunlin-compiler", "{name} links tract");
    }
}
