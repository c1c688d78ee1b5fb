//! Any bytes are a document of flags or an error; what is a document evaluates, whatever the device, and as it says.
#![no_main]

use dunlin_rollout::flag::{Context, Flag, Flags, Reason, Value};
use libfuzzer_sys::fuzz_target;

const FAST: Flag<bool> = Flag::new("fast", true);
const LIMIT: Flag<i64> = Flag::new("limit", 10);
const MODEL: Flag<&'static str> = Flag::new("model", "baseline");
const GAIN: Flag<f64> = Flag::new("gain", 1.5);

fuzz_target!(|data: &[u8]| {
    let Ok(flags) = Flags::open(data) else { return };
    let known = [
        ("region", Value::Text("eu")),
        ("board", Value::Text("m7")),
        ("firmware", Value::Text("2.1.0-rc.1")),
        ("year", Value::Int(2024)),
        ("gain", Value::Float(0.5)),
        ("battery", Value::Bool(true)),
    ];
    for attributes in [&known[..], &[]] {
        for identity in [&b"device-1"[..], b""] {
            for now in [None, Some(0), Some(u64::MAX)] {
                let context = Context { identity, attributes, model: "m", now };
                let fast = FAST.evaluate(Some(&flags), &context);
                // A compiled-in default has no variant, an error is the default, and nothing else has a code.
                assert!(fast.variant.is_some() || fast.value);
                assert_eq!(fast.reason == Reason::Error, fast.error.is_some());
                assert!(fast.reason != Reason::Error || fast.value);
                assert_eq!(fast, FAST.evaluate(Some(&flags), &context));
                let model = MODEL.evaluate(Some(&flags), &context);
                assert!(model.variant.is_some() || model.value == "baseline");
                let _ = (LIMIT.evaluate(Some(&flags), &context), GAIN.evaluate(Some(&flags), &context));
            }
        }
    }
    let mut keys = flags.keys();
    let mut last = keys.next();
    for key in keys {
        assert!(last < Some(key));
        last = Some(key);
    }
});
