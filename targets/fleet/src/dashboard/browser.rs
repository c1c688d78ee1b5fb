//! The pages in a real browser, driven by `tests/dashboard/check.mjs`.

use std::path::Path;
use std::process::Command;

use super::specimen::Specimen;

/// Where the browser is, in the order of preference; `CHROMIUM` says otherwise.
const BROWSERS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|o| o.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_in_a_browser() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard");
    let named = std::env::var("CHROMIUM").ok();
    let Some(chromium) = named.as_deref().into_iter().chain(BROWSERS).find(|p| Path::new(p).exists()) else {
        println!("skipped: there is no chromium");
        return;
    };
    if !runs(Command::new("node").arg("--version")) {
        println!("skipped: there is no node");
        return;
    }
    let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    if !folder.join("node_modules/axe-core").exists() && !runs(Command::new("npm").args(install).current_dir(&folder)) {
        println!("skipped: npm could not install playwright-core and axe-core");
        return;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, super::router(Specimen::default())).await });
    let mut check = Command::new("node");
    check.arg("check.mjs").args(std::env::var_os("DUNLIN_PICTURES")).current_dir(&folder);
    check.env("BASE", format!("http://{address}")).env("CHROMIUM", chromium);
    check.env("TOKEN", Specimen::TOKEN).env("OTHER_TOKEN", Specimen::EMPTY);
    check.env("ROLLOUT", Specimen::ROLLOUT).env("DEVICE", Specimen::DEVICE);
    let output = tokio::task::spawn_blocking(move || check.output()).await.expect("a thread").expect("node starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
