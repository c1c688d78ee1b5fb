//! The ONNX project's own node tests, where they are installed.

#[path = "../figures/conformance/suite.rs"]
mod suite;

use suite::{Claims, Outcome};

#[test]
fn claimed_cases_pass_and_nothing_panics() {
    let Some(source) = suite::find(None) else {
        eprintln!("skipped: {}", suite::HOW);
        return;
    };
    suite::quiet_panics();
    let claims = Claims::read();
    let cases = suite::cases(&source.folder).expect("the folder of cases can be read");
    assert!(!cases.is_empty(), "{} holds no cases", source.folder.display());
    let operators = suite::operators(&cases);
    let mut wrong = Vec::new();
    let (mut passed, mut constants, mut unclaimed) = (0, 0, 0);
    for case in &cases {
        let record = suite::record(case, &operators[case.name.as_str()], &claims);
        let claimed = record.unclaimed.is_none();
        passed += usize::from(claimed && record.passed());
        constants += usize::from(claimed && record.needs_constants());
        unclaimed += usize::from(!claimed && record.outcome().failed());
        // Wrong numbers of cases that are not claimed are in RESULTS.md; a panic or a fault of the compiler's own is
        // never right.
        let fault = matches!(record.outcome(), Outcome::Fault(_));
        if fault || (claimed && !record.passed()) {
            let owner = if claimed { "claimed" } else { "not claimed" };
            let reason = record.reason().unwrap_or_default();
            wrong.push(format!("{} ({}, {owner}): {reason}", record.name, record.operator));
        }
    }
    assert!(wrong.is_empty(), "{} cases of onnx {}:\n{}", wrong.len(), source.version, wrong.join("\n"));
    let names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    // Another version of the package may have fewer cases.
    eprintln!(
        "onnx {}: {passed} claimed cases pass, {constants} of them only with constants; {unclaimed} others go wrong; \
         exclusions without a case: {:?}",
        source.version,
        claims.stale(&names)
    );
}

/// Every operator of `claimed.txt` is one that the compiler lowers, and the other way round.
#[test]
fn the_list_is_that_of_the_compiler() {
    let source = |file: &str| {
        let path = format!("{}/../runtime/compiler/src/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let (lower, table) = (source("lower.rs"), source("lower/table.rs"));
    let between = |text: &str, from: &str, to: &str| {
        let start = text.find(from).unwrap_or_else(|| panic!("no {from}"));
        let end = text[start..].find(to).unwrap_or_else(|| panic!("no {to} after {from}"));
        text[start..start + end].to_owned()
    };
    let matched =
        between(&lower, "let done = match", "_ => table::unary") + &between(&table, "fn function", "_ => return");
    let names: Vec<&str> =
        matched.split('"').skip(1).step_by(2).filter(|n| n.starts_with(char::is_uppercase)).collect();
    let claims = Claims::read();
    let plain = |op: &String| op.trim_start_matches("com.microsoft.").to_owned();
    let claimed: Vec<String> = claims.operators.iter().map(plain).collect();
    let missing: Vec<_> = names.iter().filter(|n| !claimed.iter().any(|c| c == *n)).collect();
    let extra: Vec<_> = claimed.iter().filter(|c| !names.contains(&c.as_str())).collect();
    assert!(missing.is_empty(), "claimed.txt lacks {missing:?}");
    assert!(extra.is_empty(), "the compiler does not lower {extra:?}");
}
