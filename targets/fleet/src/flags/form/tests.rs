use serde_json::json;

use super::super::FlagsBody;
use super::*;

fn wrong(value: &Value) -> (String, String) {
    let invalid = document(value).expect_err("it is wrong");
    assert!(!invalid.hint.is_empty(), "{invalid:?}");
    (invalid.path, invalid.what)
}

fn example() -> Value {
    json!({ "version": 3, "ttl": 60, "flags": [{
        "key": "bicycles", "killed": false, "off": "off", "default": null,
        "variants": { "off": false, "on": true },
        "rules": [
            { "when": { "attribute": "region", "equals": "eu" }, "serve": "on" },
            { "when": { "all": [
                { "attribute": "year", "from": 2020, "to": 2024 },
                { "any": [{ "attribute": "board", "in": ["m4", "m7"] }, { "not": { "attribute": "beta", "known": true } }] },
            ] }, "serve": { "split": [{ "variant": "on", "percent": 12.5 }, { "variant": "off", "percent": 5.0, "from": 95.0 }] } },
            { "when": { "attribute": "firmware", "version_from": "2.1" }, "serve": "on" },
        ],
    }] })
}

#[test]
fn what_is_printed_reads_the_same() {
    let flags = document(&example()).expect("it reads");
    let printed = serde_json::to_value(FlagsBody::from(&flags)).expect("JSON");
    let again = document(&printed).expect("it reads");
    assert_eq!((again.version, again.ttl, &again.flags), (3, 60, &flags.flags), "{printed}");
}

#[test]
fn the_earlier_form_reads_the_same() {
    let part = |variant: u8, from: u64, to: u64| json!({ "variant": variant, "from": from, "to": to });
    let whole = 1u64 << 32;
    let earlier = json!({ "version": 3, "ttl": 60, "flags": [{
        "key": "bicycles", "off": 0, "variants": [["off", { "Bool": false }], ["on", { "Bool": true }]],
        "rules": [
            { "when": { "Equal": ["region", { "Text": "eu" }] }, "serve": { "Variant": 1 } },
            { "when": { "All": [
                { "Range": ["year", 2020, 2024] },
                { "Any": [{ "In": ["board", [{ "Text": "m4" }, { "Text": "m7" }]] }, { "Not": { "Has": "beta" } }] },
            ] }, "serve": { "Split": { "salt": b"bicycles", "parts": [part(1, 0, whole / 8), part(0, 4_080_218_931, whole)] } } },
            { "when": { "Version": ["firmware", "2.1", ""] }, "serve": { "Variant": 1 } },
        ],
    }] });
    assert_eq!(document(&earlier).expect("it reads").flags, document(&example()).expect("it reads").flags);
}

#[test]
fn rules_are_read_from_a_line() {
    let line = |rule: &str| {
        let flags = json!({ "version": 0, "flags": [{ "key": "k", "variants": { "off": false, "on": true }, "rules": [rule] }] });
        document(&flags).map(|f| f.flags[0].rules[0].clone())
    };
    let object = |rule: Value| {
        let flags = json!({ "version": 0, "flags": [{ "key": "k", "variants": { "off": false, "on": true }, "rules": [rule] }] });
        document(&flags).expect("it reads").flags[0].rules[0].clone()
    };
    for (text, same) in [
        ("region = eu -> on", json!({ "when": { "attribute": "region", "equals": "eu" }, "serve": "on" })),
        (
            "-> on 20%, off 80%",
            json!({ "serve": { "split": [{ "variant": "on", "percent": 20 }, { "variant": "off", "percent": 80 }] } }),
        ),
        ("always -> on", json!({ "serve": "on" })),
        (
            "year 2020..2024 -> off",
            json!({ "when": { "attribute": "year", "from": 2020, "to": 2024 }, "serve": "off" }),
        ),
        (
            "firmware >= 2.1 and region != \"7\" and battery is known and n in 1, 2 -> on",
            json!({ "when": { "all": [
                { "attribute": "firmware", "version_from": "2.1" },
                { "not": { "attribute": "region", "equals": "7" } },
                { "attribute": "battery", "known": true },
                { "attribute": "n", "in": [1, 2] },
            ] }, "serve": "on" }),
        ),
        (
            "firmware < 2.1 -> on",
            json!({ "when": { "attribute": "firmware", "version_before": "2.1" }, "serve": "on" }),
        ),
    ] {
        assert_eq!(line(text).expect(text), object(same), "{text}");
    }
    for bad in [
        "region = eu",
        "region -> on",
        "region eu -> on",
        "region = eu -> maybe",
        "-> on 20%, off 90%",
        "firmware >= new -> on",
    ] {
        let invalid = line(bad).expect_err(bad);
        assert_eq!(invalid.path, "flags[0].rules[0]", "{bad}: {invalid:?}");
    }
}

#[test]
fn errors_name_the_field_and_the_value() {
    let with = |field: &str, value: Value| {
        let mut flags = example();
        flags["flags"][0][field] = value;
        flags
    };
    for (flags, path, what) in [
        (json!([]), "", "[] is not an object"),
        (json!({ "flags": [] }), "version", "missing field `version`"),
        (json!({ "version": 0, "flag": [] }), "", "there is no field \"flag\""),
        (json!({ "version": "x" }), "version", "\"x\" is not a whole number from 0"),
        (with("key", json!("")), "flags[0].key", "\"\" has 0 bytes"),
        (with("killed", json!("yes")), "flags[0].killed", "\"yes\" is not true or false"),
        (with("default", json!("onn")), "flags[0].default", "there is no variant \"onn\""),
        (with("default", json!(2)), "flags[0].default", "there is no variant 2"),
        (
            with("variants", json!({ "on": true, "off": 0 })),
            "flags[0].variants",
            "the value of \"on\" is of another type than that of \"off\"",
        ),
        (with("variants", json!({ "on": [] })), "flags[0].variants.on", "[] is not true, false, a number or text"),
        (with("rules", json!([{ "serve": "onn" }])), "flags[0].rules[0].serve", "there is no variant \"onn\""),
        (
            with("rules", json!([{ "when": { "attribute": "a", "is": 1 }, "serve": "on" }])),
            "flags[0].rules[0].when",
            "{\"attribute\":\"a\",\"is\":1} is no condition",
        ),
        (
            with("rules", json!([{ "when": { "any": [{ "attribute": "a", "version_from": "x" }] }, "serve": "on" }])),
            "flags[0].rules[0].when.any[0].version_from",
            "\"x\" is not a version such as 1.2.3",
        ),
        (
            with("rules", json!([{ "serve": { "split": [{ "variant": "on", "percent": 101 }] } }])),
            "flags[0].rules[0].serve.split[0].percent",
            "101 is not a number from 0 to 100",
        ),
    ] {
        assert_eq!(wrong(&flags), (path.to_owned(), what.to_owned()));
    }
    let mut twice = example();
    twice["flags"] = json!([twice["flags"][0], twice["flags"][0]]);
    assert_eq!(wrong(&twice).0, "flags[1].key");
    // What only devices' own reader finds wrong is told with the flag.
    let deep = json!({ "not": { "not": { "not": { "not": { "attribute": "a", "known": true } } } } });
    let (path, what) = wrong(&with("rules", json!([{ "when": deep, "serve": "on" }])));
    assert!(path == "flags[0]" && what.contains("bicycles") && what.contains("deep"), "{path} {what}");
}
