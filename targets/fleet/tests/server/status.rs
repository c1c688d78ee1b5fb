//! What a rollout's status says in every phase: to programs, and to people on its page.

use serde_json::{Value, json};

use super::dashboard;
use super::device::Behaviour;
use super::rollouts::{Flock, begun, status};
use super::site::{Site, Tenant, on_each_engine};

fn line(status: &Value) -> &str {
    status["status_line"].as_str().expect("a status line")
}

/// The page of the rollout, as a viewer sees it.
async fn page(site: &Site, tenant: &Tenant) -> String {
    let cookie = dashboard::sign_in(site, &tenant.viewer).await;
    dashboard::text(&dashboard::get(site, "/rollouts/r", &cookie).await)
}

async fn act(site: &Site, tenant: &Tenant, action: &str, body: Value) -> Value {
    site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.approver, body).await.ok()
}

#[test]
fn a_person_reads_why_from_the_first_minute_to_the_last_device_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 50, "control_percent": 50, "device_days": 1000 },
            { "canary_percent": 60, "control_percent": 40, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 40, &one).await;
        flock.poll(&site).await;
        flock.poll(&site).await;

        // The first minute.
        let first = status(&site, &tenant, "r").await;
        assert!(line(&first).starts_with("Running stage 1 of 2 since "), "{first}");
        for words in [
            " of about 20 planned devices updated",
            "needs 24 more hours",
            "1 000 more device-days",
            "first decision at",
            "(24 h after the stage began)",
        ] {
            let plain = line(&first).replace('\u{202f}', " ");
            assert!(plain.contains(words), "{words:?} in {first}");
        }
        let (entered, next) = (first["entered"].as_i64(), first["next_decision_at"].as_i64());
        assert_eq!(next, entered.map(|at| at + 86_400 + 60), "the end of the first day, and its grace");
        assert_eq!((&first["stage"], &first["stage_number"], &first["planned"]), (&json!(0), &json!(1), &json!(20)));
        assert_eq!(first["needs"][2], json!({ "what": "device_days", "found": 0, "needed": 1000 }), "{first}");
        assert_eq!(first["versions"], json!(["1.2"]), "{first}");
        let last = &first["last_action"];
        assert_eq!(
            (&last["action"], &last["by"], &last["reason"]),
            (&json!("start"), &json!("a-operator"), &Value::Null)
        );
        let text = page(&site, &tenant).await;
        assert!(text.contains("<h1>r</h1>") && text.contains("<title>r (m 1.2)"), "{text}");
        assert!(text.contains("Running stage 1 of 2") && !text.contains("it has not started"), "{text}");

        // Paused by a person.
        let paused = act(&site, &tenant, "pause", json!({ "reason": "  frames are\n dark " })).await;
        let text = line(&paused);
        assert!(text.starts_with("Paused by a-approver at ") && text.contains(": frames are dark; "), "{paused}");
        assert_eq!(paused["last_action"]["reason"], "frames are dark", "{paused}");
        assert_eq!(paused["verdict"], paused["status_line"], "it is not judged: {paused}");
        assert!(page(&site, &tenant).await.contains("frames are dark"));
        let long = json!({ "reason": "x".repeat(201) });
        let path = "/v1/rollouts/r/resume";
        assert!(site.client.call("POST", path, &tenant.approver, long).await.refused(422).contains("201"));
        let resumed = act(&site, &tenant, "resume", json!({})).await;
        assert!(line(&resumed).starts_with("Running stage 1 of 2"), "{resumed}");
        let advanced = act(&site, &tenant, "advance", json!({ "stage": 0, "reason": "rehearsal" })).await;
        assert_eq!((&advanced["stage"], &advanced["stage_number"]), (&json!(1), &json!(2)), "{advanced}");
        let wrong = json!({ "stage": 4 });
        let text = site.client.call("POST", "/v1/rollouts/r/advance", &tenant.approver, wrong).await.refused(409);
        assert!(text.contains("in stage 2, not 5"), "people count from 1: {text}");
        for _ in 0..3 {
            flock.poll(&site).await;
        }
        let had = flock.running(&two) as u64;
        assert!(had > 10, "{had}");

        // Rolled back by a person: why, and how far it is.
        let back = act(&site, &tenant, "abort", json!({ "devices": "revert", "reason": "too many failures" })).await;
        let text = line(&back);
        assert!(text.starts_with("Rolled back by a-approver at ") && text.contains(": too many failures; "), "{back}");
        assert!(!back["verdict"].as_str().expect("text").contains("HOLD"), "{back}");
        assert_eq!(back["next_decision_at"], Value::Null);
        let progress = &back["rollback"];
        assert_eq!((&progress["by"], &progress["reason"]), (&json!("a-approver"), &json!("too many failures")));
        assert_eq!((&progress["told"], &progress["back"]), (&json!(0), &json!(0)), "{back}");
        let text = page(&site, &tenant).await;
        for words in ["Rolled back by a-approver", "too many failures", "Still on it", "0 of "] {
            assert!(text.contains(words), "{words}: {text}");
        }
        site.clock.skip(60);
        for _ in 0..4 {
            flock.poll(&site).await;
        }
        let done = status(&site, &tenant, "r").await;
        let progress = &done["rollback"];
        assert_eq!((&progress["running"], &progress["silent"]), (&json!(0), &json!(0)), "{done}");
        assert_eq!(progress["back"].as_u64(), Some(had), "{done}");
        assert_eq!(progress["told"].as_u64(), Some(had), "{done}");
        assert_eq!((done["returned"].as_u64(), &done["reverted"]), (Some(had), &json!(0)), "ordered, not on their own");
        assert!(line(&done).ends_with(&format!("{had} of {had} devices are back")), "{done}");

        // A draft again says who made it one.
        let draft = act(&site, &tenant, "retry", json!({ "reason": "lens cleaned" })).await;
        assert!(line(&draft).contains("reset by a-approver at ") && line(&draft).contains(": lens cleaned"), "{draft}");
        assert!(line(&draft).ends_with("It has not started"), "{draft}");
        let audit = site.client.call("GET", "/v1/audit?limit=1000", &tenant.viewer, Value::Null).await.ok();
        let kept = audit.as_array().expect("a list").iter().filter_map(|e| e["detail"].as_str());
        assert_eq!(kept.filter(|d| d.contains("too many failures")).count(), 1, "{audit}");
        site.server.stop().await;
    });
}

#[test]
fn the_server_says_why_it_rolled_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 30, "control_percent": 40, "devices": 10, "device_days": 1000 }]);
        let (one, _) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 100, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Fails);
        let mut days = 0;
        while status(&site, &tenant, "r").await["phase"] == "Running" && days < 8 {
            flock.day(&site, false).await;
            days += 1;
        }
        let stopped = status(&site, &tenant, "r").await;
        let text = line(&stopped).replace('\u{202f}', " ");
        assert!(text.starts_with("Rolled back by the server at "), "{text}");
        for words in
            ["device-days with version 1.2 an inference failed, on ", "with version 1.1 (evidence ", " of 2.0)"]
        {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        let last = &stopped["last_action"];
        assert_eq!((&last["action"], &last["by"]), (&json!("rollback"), &json!("server")), "{stopped}");
        let guardrails = stopped["arms"]["guardrails"].as_array().expect("a list");
        let failed = guardrails.iter().find(|g| g["guardrail"] == "inference_error").expect("a guardrail");
        let number = |name: &str| failed[name].as_f64().expect("a number");
        assert!((number("evidence") - number("ln_e") / std::f64::consts::LN_10).abs() < 1e-9, "{failed}");
        assert!(number("evidence") >= number("evidence_limit"), "{failed}");
        let verdicts = site.client.call("GET", "/v1/rollouts/r/verdicts", &tenant.viewer, Value::Null).await.ok();
        let last = verdicts.as_array().and_then(|v| v.last()).cloned().expect("a verdict");
        assert!(last["reason"].as_str().is_some_and(|r| r.starts_with("ROLLBACK at stage 1: ")), "{last}");
        assert_eq!(last["stage"], 0, "numbers of the API count from 0: {last}");
        let text = page(&site, &tenant).await;
        for words in
            ["id=\"sentence\"", "an inference failed", "Went back on their own", "Sent back", "What these words mean"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        site.server.stop().await;
    });
}
