use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::Share;

const FAST: Flag<bool> = Flag::new("fast", false);
const LIMIT: Flag<i64> = Flag::new("limit", 10);
const MODEL: Flag<&'static str> = Flag::new("model", "baseline");
const GAIN: Flag<f64> = Flag::new("gain", 1.5);

fn spec(key: &str, variants: &[(&str, Setting)]) -> FlagSpec {
    let variants = variants.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
    FlagSpec { key: key.into(), variants, default: Some(0), ..FlagSpec::default() }
}

fn text(text: &str) -> Setting {
    Setting::Text(text.into())
}

fn rule(when: Option<When>, serve: Serving) -> RuleSpec {
    RuleSpec { when, serve }
}

fn part(variant: u8, from: u8, to: u8) -> Part {
    Part { variant, from: Share::percent(from), to: Share::percent(to) }
}

fn sample() -> Document {
    let on_off = [("off", Setting::Bool(false)), ("on", Setting::Bool(true))];
    let mut fast = spec("fast", &on_off);
    fast.rules = vec![
        rule(Some(When::Equal("region".into(), text("eu"))), Serving::Variant(1)),
        rule(None, Serving::Split { salt: b"fast-1".to_vec(), parts: vec![part(1, 0, 5), part(0, 95, 100)] }),
        rule(Some(When::Version("firmware".into(), "2.1".into(), String::new())), Serving::Variant(1)),
    ];
    let mut model = spec("model", &[("a", text("digits-2")), ("b", text("digits-3"))]);
    let old = When::Range("year".into(), 2000, 2019);
    let boards = When::In("board".into(), vec![text("m4"), text("m7")]);
    model.rules = vec![rule(Some(When::All(vec![boards, When::Not(old.into())])), Serving::Variant(1))];
    let mut limit = spec("limit", &[("low", Setting::Int(-5)), ("high", Setting::Int(500))]);
    (limit.killed, limit.off) = (true, Some(0));
    let mut gain = spec("gain", &[("half", Setting::Float(0.5))]);
    gain.default = None;
    Document { sequence: 7, issued: 1_800_000_000, ttl: 86_400, flags: vec![model, fast, limit, gain] }
}

fn context<'a>(identity: &'a [u8], attributes: &'a [(&'a str, Value<'a>)]) -> Context<'a> {
    Context { identity, attributes, model: "", now: Some(1_800_000_060) }
}

#[test]
fn values_and_reasons() {
    let payload = sample().encode().unwrap();
    let flags = Flags::open(&payload).unwrap();
    assert_eq!((flags.sequence(), flags.issued(), flags.ttl()), (7, 1_800_000_000, 86_400));
    assert_eq!(flags.keys().collect::<Vec<_>>(), ["fast", "gain", "limit", "model"]);
    let flags = Some(&flags);

    let eu = [("region", Value::Text("eu"))];
    let found = FAST.evaluate(flags, &context(b"device-1", &eu));
    let on = Resolution { value: true, variant: Some("on"), reason: Reason::Targeting, error: None };
    assert_eq!(found, on);
    // Of a thousand devices, those of the canary and those of the control are in the split, the rest is not.
    let (mut canary, mut control) = (0, 0);
    for i in 0..10_000u32 {
        let identity = i.to_le_bytes();
        let found = FAST.evaluate(flags, &context(&identity, &[]));
        match (found.reason, found.value) {
            (Reason::Split, true) => canary += 1,
            (Reason::Split, false) => control += 1,
            (reason, value) => assert_eq!((reason, value), (Reason::Default, false)),
        }
    }
    assert!((400..600).contains(&canary) && (400..600).contains(&control), "{canary} {control}");

    let m7 = [("board", Value::Text("m7")), ("year", Value::Int(2024))];
    let found = MODEL.evaluate(flags, &context(b"d", &m7));
    assert_eq!((found.value, found.variant, found.reason), ("digits-3", Some("b"), Reason::Targeting));
    // The year is not known: neither old nor not old.
    let found = MODEL.evaluate(flags, &context(b"d", &m7[..1]));
    assert_eq!((found.value, found.reason), ("digits-2", Reason::Default));
    let found = LIMIT.evaluate(flags, &context(b"d", &[]));
    assert_eq!((found.value, found.variant, found.reason), (-5, Some("low"), Reason::Killed));
    // Set, but without a default: the compiled-in one, which is not an error.
    let found = GAIN.evaluate(flags, &context(b"d", &[]));
    assert_eq!(found, Resolution { value: 1.5, variant: None, reason: Reason::Default, error: None });
}

#[test]
fn stale_documents_still_say_what_they_say() {
    let payload = sample().encode().unwrap();
    let flags = Flags::open(&payload).unwrap();
    let eu = [("region", Value::Text("eu"))];
    for (now, reason) in [
        (Some(1_800_086_400), Reason::Targeting),
        (Some(1_800_086_401), Reason::Stale),
        (Some(0), Reason::Targeting),
        (None, Reason::Stale),
    ] {
        let found = FAST.evaluate(Some(&flags), &Context { now, ..context(b"d", &eu) });
        assert_eq!((found.value, found.variant, found.reason), (true, Some("on"), reason), "{now:?}");
    }
    // Killed is killed, however old.
    assert_eq!(LIMIT.evaluate(Some(&flags), &Context { now: None, ..context(b"d", &[]) }).reason, Reason::Killed);
    let forever = Document { ttl: 0, ..sample() }.encode().unwrap();
    assert!(!Flags::open(&forever).unwrap().is_stale(None));
}

#[test]
fn errors_give_the_compiled_in_default() {
    let payload = sample().encode().unwrap();
    let flags = Flags::open(&payload).unwrap();
    let context = context(b"", &[]);
    fn error(found: Resolution<'_, bool>) -> (bool, bool, Reason, Option<ErrorCode>) {
        (found.value, found.variant.is_none(), found.reason, found.error)
    }
    let expected = |code| (true, true, Reason::Error, Some(code));
    let flag = |key| Flag::new(key, true);
    assert_eq!(error(flag("fast").evaluate(None, &context)), expected(ErrorCode::ProviderNotReady));
    assert_eq!(error(flag("fats").evaluate(Some(&flags), &context)), expected(ErrorCode::FlagNotFound));
    assert_eq!(error(flag("limit").evaluate(Some(&flags), &context)), expected(ErrorCode::TypeMismatch));
    assert_eq!(error(flag("gain").evaluate(Some(&flags), &context)), expected(ErrorCode::TypeMismatch));
    assert_eq!(error(flag("fast").evaluate(Some(&flags), &context)), expected(ErrorCode::TargetingKeyMissing));
}

#[test]
fn names_are_openfeatures() {
    let reasons = [Reason::Default, Reason::Targeting, Reason::Split, Reason::Stale, Reason::Killed, Reason::Error];
    assert_eq!(reasons.map(Reason::name), ["DEFAULT", "TARGETING_MATCH", "SPLIT", "STALE", "DISABLED", "ERROR"]);
    assert_eq!(ErrorCode::FlagNotFound.name(), "FLAG_NOT_FOUND");
    assert_eq!(ErrorCode::TargetingKeyMissing.name(), "TARGETING_KEY_MISSING");
}

#[test]
fn three_values() {
    let (yes, no) = (When::Equal("a".into(), Setting::Int(1)), When::Equal("a".into(), Setting::Int(2)));
    let unknown = When::Equal("b".into(), Setting::Int(1));
    let holds = |when: &When| {
        let mut flag = spec("fast", &[("off", Setting::Bool(false)), ("on", Setting::Bool(true))]);
        flag.rules = vec![rule(Some(when.clone()), Serving::Variant(1))];
        let payload = Document { flags: vec![flag], ..Document::default() }.encode().unwrap();
        FAST.evaluate(Some(&Flags::open(&payload).unwrap()), &context(b"d", &[("a", Value::Int(1))])).value
    };
    for (when, expected) in [
        (yes.clone(), true),
        (no.clone(), false),
        (unknown.clone(), false),
        (When::Not(no.clone().into()), true),
        (When::Not(unknown.clone().into()), false),
        (When::Any(vec![unknown.clone(), yes.clone()]), true),
        (When::Any(vec![unknown.clone(), no.clone()]), false),
        (When::Not(When::All(vec![unknown.clone(), no.clone()]).into()), true),
        (When::All(vec![yes.clone(), unknown.clone()]), false),
        // Of another type: not comparable.
        (When::Not(When::Equal("a".into(), text("1")).into()), false),
        (When::In("a".into(), vec![Setting::Int(3), Setting::Int(1)]), true),
        (When::Not(When::In("a".into(), vec![Setting::Int(3)]).into()), true),
        (When::Range("a".into(), 1, 1), true),
        (When::Not(When::Range("b".into(), 1, 1).into()), false),
    ] {
        assert_eq!(holds(&when), expected, "{when:?}");
    }
}

#[test]
fn versions_are_ordered() {
    let v = |text| Version::parse(text).unwrap();
    let rising = ["0.9", "1", "1.0.1-rc.1", "1.0.1", "1.2.0", "1.10", "2.0.0-beta", "2.0.0+build.7"];
    assert!(rising.windows(2).all(|w| v(w[0]) < v(w[1])));
    assert_eq!((v("1"), v("1.2+x")), (v("1.0.0"), v("1.2.0")));
    assert!(
        ["", "1.", ".1", "a", "1.2.3.4", "1.-2", "1-", "99999999999", "-1", "+"]
            .map(Version::parse)
            .iter()
            .all(Option::is_none)
    );
}

#[test]
fn unsound_documents_are_refused() {
    let with = |change: &dyn Fn(&mut FlagSpec)| {
        let mut flag = spec("fast", &[("off", Setting::Bool(false)), ("on", Setting::Bool(true))]);
        change(&mut flag);
        Document { flags: vec![flag], ..Document::default() }.encode()
    };
    let always = |serve| vec![rule(None, serve)];
    let when = |when| vec![rule(Some(when), Serving::Variant(0))];
    let split = |parts| always(Serving::Split { salt: vec![], parts });
    let deep = (0..4).fold(When::Has("a".into()), |w, _| When::Not(w.into()));
    let wide = When::Any(vec![When::In("a".into(), vec![Setting::Int(1); 16]); 2]);
    assert!(with(&|_| {}).is_ok());
    type Change<'a> = &'a dyn Fn(&mut FlagSpec);
    let cases: [(Change<'_>, FlagError); 16] = [
        (&|f| f.default = Some(2), FlagError::NoVariant),
        (&|f| f.off = Some(9), FlagError::NoVariant),
        (&|f| f.rules = always(Serving::Variant(2)), FlagError::NoVariant),
        (&|f| f.rules = split(vec![part(2, 0, 5)]), FlagError::NoVariant),
        (&|f| f.rules = split(vec![part(0, 5, 0)]), FlagError::Parts),
        (&|f| f.rules = split(vec![part(0, 0, 10), part(1, 5, 20)]), FlagError::Parts),
        (&|f| f.rules = split(vec![]), FlagError::Malformed),
        (&|f| f.variants.clear(), FlagError::Malformed),
        (&|f| f.variants.push(("x".into(), Setting::Int(0))), FlagError::MixedTypes),
        (&|f| f.variants = vec![("x".into(), Setting::Bool(true)); 17], FlagError::TooMany),
        (&|f| f.key = "k".repeat(65), FlagError::TooLong),
        (&|f| f.rules = when(deep.clone()), FlagError::TooDeep),
        (&|f| f.rules = when(wide.clone()), FlagError::TooMany),
        (&|f| f.rules = when(When::All(vec![])), FlagError::Malformed),
        (&|f| f.rules = when(When::Range("a".into(), 2, 1)), FlagError::Bounds),
        (&|f| f.rules = when(When::Version("a".into(), "x".into(), String::new())), FlagError::Bounds),
    ];
    for (i, (change, error)) in cases.into_iter().enumerate() {
        assert_eq!(with(change), Err(error), "{i}");
    }
    let twice = Document { flags: vec![spec("a", &[("x", Setting::Int(1))]); 2], ..Document::default() };
    assert_eq!(twice.encode(), Err(FlagError::Order));
    let payload = sample().encode().unwrap();
    for len in 0..payload.len() {
        assert!(Flags::open(&payload[..len]).is_err(), "{len}");
    }
    assert!(Flags::open(&[&payload[..], &[0]].concat()).is_err());
    let newer = [&[2], &payload[1..]].concat();
    assert!(matches!(Flags::open(&newer), Err(FlagError::Version { found: 2 })));
}

/// The bytes of the format, for every implementation.
#[test]
fn golden_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/flags.bin");
    let payload = sample().encode().unwrap();
    if std::env::var_os("DUNLIN_DRAW").is_some() {
        std::fs::write(path, &payload).unwrap();
    }
    assert_eq!(
        std::fs::read(path).unwrap(),
        payload,
        "the format has changed, or run this test once with DUNLIN_DRAW=1"
    );
}

fn setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        (0i64..4).prop_map(Setting::Int),
        "[ab]{0,2}".prop_map(Setting::Text),
        any::<bool>().prop_map(Setting::Bool)
    ]
}

fn when() -> impl Strategy<Value = When> {
    let name = "[a-d]";
    let leaf = prop_oneof![
        name.prop_map(When::Has),
        (name, setting()).prop_map(|(n, v)| When::Equal(n, v)),
        (name, proptest::collection::vec(setting(), 1..4)).prop_map(|(n, v)| When::In(n, v)),
        (name, -2i64..3, 0i64..3).prop_map(|(n, min, more)| When::Range(n, min, min + more)),
        (name, "[12]\\.[0-3]", "2(\\.[0-3])?").prop_map(|(n, from, below)| When::Version(n, from, below)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(When::All),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(When::Any),
            inner.prop_map(|w| When::Not(w.into())),
        ]
    })
}

/// What a condition means, said a second time.
fn meaning(when: &When, context: &Context<'_>) -> Option<bool> {
    let same = |a: Value<'_>, b: &Setting| match (a, b) {
        (Value::Int(a), Setting::Int(b)) => Some(a == *b),
        (Value::Bool(a), Setting::Bool(b)) => Some(a == *b),
        (Value::Text(a), Setting::Text(b)) => Some(a == b),
        _ => None,
    };
    let any = |found: Vec<Option<bool>>| {
        if found.contains(&Some(true)) {
            Some(true)
        } else if found.contains(&None) {
            None
        } else {
            Some(false)
        }
    };
    match when {
        When::Any(of) => any(of.iter().map(|w| meaning(w, context)).collect()),
        When::All(of) => any(of.iter().map(|w| meaning(w, context).map(|t| !t)).collect()).map(|t| !t),
        When::Not(of) => meaning(of, context).map(|t| !t),
        When::Has(name) => Some(context.attribute(name).is_some()),
        When::Equal(name, value) => context.attribute(name).and_then(|a| same(a, value)),
        When::In(name, values) => {
            let attribute = context.attribute(name)?;
            any(values.iter().map(|v| same(attribute, v)).collect())
        }
        When::Range(name, min, max) => match context.attribute(name)? {
            Value::Int(n) => Some(*min <= n && n <= *max),
            _ => None,
        },
        When::Version(name, from, below) => match context.attribute(name)? {
            Value::Text(text) => {
                let version = Version::parse(text)?;
                Some(Version::parse(from)? <= version && version < Version::parse(below)?)
            }
            _ => None,
        },
    }
}

proptest! {
    #[test]
    fn conditions_mean_what_they_say(when in when(), values in proptest::collection::vec(proptest::option::of(setting()), 4), version in "[12]\\.[0-3]") {
        let mut flag = spec("fast", &[("off", Setting::Bool(false)), ("on", Setting::Bool(true))]);
        flag.rules = vec![rule(Some(when.clone()), Serving::Variant(1))];
        let payload = match (Document { flags: vec![flag], ..Document::default() }).encode() {
            Ok(payload) => payload,
            Err(error) => {
                prop_assert_eq!(error, FlagError::TooMany);
                return Ok(());
            }
        };
        let mut attributes: Vec<_> = ["a", "b", "c"].into_iter().zip(&values).filter_map(|(n, v)| v.as_ref().map(|v| (n, v.value()))).collect();
        attributes.push(("d", Value::Text(&version)));
        let context = context(b"d", &attributes);
        let found = FAST.evaluate(Some(&Flags::open(&payload).unwrap()), &context);
        prop_assert_eq!(found.value, meaning(&when, &context) == Some(true));
    }

    #[test]
    fn raising_a_split_moves_nobody_out(identity: [u8; 6], low in 0u8..50, more in 0u8..50) {
        let value = |to| {
            let mut flag = spec("fast", &[("off", Setting::Bool(false)), ("on", Setting::Bool(true))]);
            flag.rules = vec![rule(None, Serving::Split { salt: b"s".to_vec(), parts: vec![part(1, 0, to)] })];
            let payload = Document { flags: vec![flag], ..Document::default() }.encode().unwrap();
            FAST.evaluate(Some(&Flags::open(&payload).unwrap()), &context(&identity, &[])).value
        };
        prop_assert!(value(low + more) || !value(low));
        prop_assert!(value(100) && !value(0));
    }

    /// Damaged documents are refused or harmless.
    #[test]
    fn damage_is_harmless(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut payload = sample().encode().unwrap();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(flags) = Flags::open(&payload) {
            let attributes = [("region", Value::Text("eu")), ("board", Value::Text("m4")), ("year", Value::Int(2020))];
            let context = context(b"device", &attributes);
            let _ = FAST.evaluate(Some(&flags), &context);
            let _ = (LIMIT.evaluate(Some(&flags), &context), GAIN.evaluate(Some(&flags), &context));
            let _ = format!("{:?}", MODEL.evaluate(Some(&flags), &context));
        }
    }
}

#[test]
fn the_model_is_a_built_in_attribute() {
    let own = [("model", Value::Text("board-7"))];
    let of = |attributes| Context { identity: b"d", attributes, model: "digits", now: None };
    assert_eq!(of(&[]).attribute("model"), Some(Value::Text("digits")));
    assert_eq!(of(&[]).attribute(MODEL_ATTRIBUTE), Some(Value::Text("digits")));
    // A stored document may ask for a device's own attribute of this name, and a stop has to reach the device nevertheless.
    assert_eq!(of(&own).attribute("model"), Some(Value::Text("board-7")));
    assert_eq!(of(&[(MODEL_ATTRIBUTE, Value::Int(1))]).attribute(MODEL_ATTRIBUTE), Some(Value::Text("digits")));
    assert_eq!(Context { model: "", ..of(&[]) }.attribute("model"), None);

    let off = spec("dunlin.serve", &[("on", Setting::Bool(true)), ("off", Setting::Bool(false))]);
    let when = Some(When::Equal(MODEL_ATTRIBUTE.into(), Setting::Text("digits".into())));
    let off = FlagSpec { rules: vec![rule(when, Serving::Variant(1))], ..off };
    let payload = Document { flags: vec![off], ..sample() }.encode().unwrap();
    let flags = Flags::open(&payload).unwrap();
    assert_eq!(flags.variant("dunlin.serve", &of(&own)), Ok((Some("off"), Reason::Targeting)));
    assert_eq!(flags.variant("dunlin.serve", &Context { model: "kws", ..of(&own) }), Ok((Some("on"), Reason::Default)));
    assert_eq!(flags.variant("other", &of(&own)), Err(ErrorCode::FlagNotFound));
    assert!(!Flag::new("dunlin.serve", true).evaluate(Some(&flags), &of(&[])).value);
}
