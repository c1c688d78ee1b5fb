//! The command on a pipe that closes, on a terminal, and its help, manual pages and completions.
#![cfg(unix)]

use std::io::Read as _;
use std::process::{Command, Stdio};

fn dunlin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(arguments);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COMPLETE"] {
        command.env_remove(name);
    }
    command
}

fn package() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let artifact = dunlin_models::find("digits", Some("2")).expect("digits 2");
    std::fs::write(path("digits.onnx"), artifact.onnx).expect("written");
    std::fs::write(path("golden.npz"), artifact.golden).expect("written");
    let out = path("digits.dunlin");
    let compiled = dunlin(&["compile", &path("digits.onnx"), "-o", &out, "--golden", &path("golden.npz")]).output();
    assert!(compiled.expect("runs").status.success());
    (folder, out)
}

#[test]
fn a_reader_that_has_gone_ends_the_command_quietly() {
    let (_folder, package) = package();
    for arguments in [&["completions", "bash"][..], &["--json", "inspect", &package], &["inspect", &package]] {
        let mut child = dunlin(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dunlin runs");
        let mut pipe = child.stdout.take().expect("a pipe");
        // As `head -c 10` does.
        let mut first = [0; 10];
        if arguments[0] == "completions" {
            pipe.read_exact(&mut first).expect("a beginning");
        }
        drop(pipe);
        let mut error = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("UTF-8");
        let code = child.wait().expect("ends").code();
        assert!(error.is_empty(), "{arguments:?}: {error}");
        // What fits into the pipe's buffer was written before it closed.
        assert!(matches!(code, Some(0 | 141)), "{arguments:?}: {code:?}");
    }
    // Nobody reads a line of this one: the pipe is closed before the command begins.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = dunlin(&["inspect", &package]).stdout(writer).stderr(Stdio::piped()).output().expect("runs");
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(141), &b""[..]));
}

#[test]
fn a_full_disk_is_an_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("skipped: needs /dev/full");
        return;
    };
    let output = dunlin(&["completions", "bash"]).stdout(full).stderr(Stdio::piped()).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && text.contains("standard output"), "{text}");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let (_folder, package) = package();
    let verify = ["verify", &package, "--backend", "scalar"];
    let text = |command: &mut Command| {
        let output = command.env("LC_ALL", "C.UTF-8").output().expect("runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let plain = text(&mut dunlin(&verify));
    assert!(!plain.contains('\x1b') && !plain.contains('✓'), "{plain}");
    assert!(plain.lines().last().is_some_and(|line| line.starts_with("1 of 1 outputs equal: ")), "{plain}");
    let always = text(&mut dunlin(&[&["--color", "always"][..], &verify].concat()));
    assert!(always.contains("\x1b[1m") && always.contains("✓ 1 of 1 outputs equal"), "{always}");
    assert_eq!(console::strip_ansi_codes(&always).replace("✓ ", ""), plain);
    assert_eq!(text(dunlin(&verify).env("CLICOLOR_FORCE", "1")), always);
    assert_eq!(text(dunlin(&verify).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1")), plain);
    assert_eq!(text(&mut dunlin(&[&["--color", "never"][..], &verify].concat())), plain);
    let json = text(&mut dunlin(&[&["--json", "--color", "always"][..], &verify].concat()));
    assert!(!json.contains('\x1b'), "{json}");
}

#[test]
fn a_terminal_has_colours() {
    let (_folder, package) = package();
    let line = format!("{} verify {package} --backend scalar", env!("CARGO_BIN_EXE_dunlin"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("LC_ALL", "C.UTF-8");
    let output = command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdin(Stdio::null()).output();
    let Ok(output) = output else {
        eprintln!("skipped: needs script(1)");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("\x1b[1m") && text.contains('✓'), "{text}");
}

#[test]
fn help_has_examples_and_there_are_manual_pages() {
    let help = |arguments: &[&str]| {
        let output = dunlin(arguments).output().expect("runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(help(&["compile", "--help"]).contains("Examples:\n  dunlin compile model.onnx -o model.dunlin"));
    assert!(help(&["fleet", "rollout", "abort", "--help"]).contains("dunlin fleet rollout abort spring --revert"));
    let abort = dunlin(&["fleet", "rollout", "abort", "spring"]).output().expect("runs");
    let text = String::from_utf8_lossy(&abort.stderr).into_owned();
    assert!(abort.status.code() == Some(2) && text.contains("<--revert|--keep>"), "{text}");
    let publish = dunlin(&["fleet", "publish", "model.dunlin"]).output().expect("runs");
    let text = String::from_utf8_lossy(&publish.stderr).into_owned();
    assert!(text.contains("--release <RELEASE>|--keys <KEYS>"), "{text}");

    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man1");
    let output = dunlin(&["man", &pages.to_string_lossy()]).output().expect("runs");
    assert!(output.status.success());
    for page in ["dunlin.1", "dunlin-compile.1", "dunlin-fleet-rollout-start.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".SH NAME") && text.contains("Examples:"), "{page}: {text}");
    }
}

#[test]
fn completions_know_chips_and_are_silent_without_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let complete = |words: &[&str]| {
        let mut command = dunlin(&[]);
        command.arg("--").args(words).env("COMPLETE", "fish").env("DUNLIN_FLEET_PROFILE", folder.path().join("none"));
        let output = command.output().expect("runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let chips = complete(&["dunlin", "compile", "--chip", "stm32f4"]);
    assert!(chips.contains("stm32f405") && !chips.contains("nrf52840"), "{chips}");
    let targets = complete(&["dunlin", "compile", "--target", "cortex-m"]);
    assert!(targets.contains("cortex-m33"), "{targets}");
    assert_eq!(complete(&["dunlin", "fleet", "use", ""]).lines().filter(|l| !l.starts_with('-')).count(), 0);
    assert!(complete(&["dunlin", "fleet", "rollout", "st"]).contains("status"));
}
