//! Examples that `--help` shows. A test parses each of them.

use clap::Command;

/// Examples of a command: its path and command lines that work.
const EXAMPLES: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "dunlin compile model.onnx -o model.dunlin --golden vectors.npz",
            "dunlin inspect model.dunlin",
            "dunlin demo",
        ],
    ),
    (
        &["compile"],
        &[
            "dunlin compile model.onnx -o model.dunlin --golden vectors.npz",
            "dunlin compile model.onnx -o model.dunlin --chip stm32f405",
            "dunlin compile model.onnx -o model.dunlin --input-shape input=1,3,224,224",
        ],
    ),
    (
        &["run"],
        &[
            "dunlin run model.dunlin --inputs in.npz --outputs out.npz",
            "dunlin run digits.dunlin --inputs digits.test.npz --scale 0.003921569 --limit 3",
        ],
    ),
    (
        &["verify"],
        &["dunlin verify model.dunlin --backend all", "dunlin verify model.onnx --golden vectors.npz --tolerance 0.01"],
    ),
    (&["bench"], &["dunlin bench model.dunlin", "dunlin bench model.onnx --backend scalar --min-ms 2000"]),
    (
        &["inspect"],
        &[
            "dunlin inspect model.dunlin --chip nrf52840",
            "dunlin inspect model.onnx --svg model.svg",
            "dunlin inspect --trust model.release --root keys/1.root",
        ],
    ),
    (&["keys"], &["dunlin keys init keys --root 2/3 --targets 1/1"]),
    (
        &["keys", "init"],
        &[
            "dunlin keys init keys --root 2/3 --targets 1/1",
            "dunlin keys init keys --rollout-key 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
        ],
    ),
    (&["keys", "rotate"], &["dunlin keys rotate keys --role targets"]),
    (&["keys", "threshold"], &["dunlin keys threshold keys --role root 3"]),
    (&["sign"], &["dunlin sign release model.dunlin --keys keys --number 1 -o model.release"]),
    (&["sign", "release"], &["dunlin sign release model.dunlin --keys keys --number 1 -o model.release"]),
    (
        &["sign", "rollout"],
        &["dunlin sign rollout model.release --keys keys --sequence 1 --percent 10 -o model.rollout"],
    ),
    (&["sign", "add"], &["dunlin sign add model.release --key second/3f2a.key --role targets"]),
    (&["delta"], &["dunlin delta old.dunlin new.dunlin -o new.patch --regions"]),
    (
        &["calibrate"],
        &["dunlin calibrate digits.dunlin --data digits.test.npz --scale 0.003921569 -o calibrated.dunlin"],
    ),
    (
        &["drift"],
        &[
            "dunlin drift reports.bin --reference calibrated.dunlin --svg drift.svg",
            "dunlin drift reports.bin --reference calibrated.dunlin --window 86400 --fail-on act",
        ],
    ),
    (&["fleet"], &["dunlin fleet login https://fleet.example.org", "dunlin fleet rollout status"]),
    (
        &["fleet", "login"],
        &[
            "dunlin fleet login https://fleet.example.org < token.txt",
            "dunlin fleet login https://staging.example.org --name staging",
        ],
    ),
    (&["fleet", "contexts"], &["dunlin fleet contexts"]),
    (&["fleet", "use"], &["dunlin fleet use staging"]),
    (&["fleet", "whoami"], &["dunlin fleet whoami", "dunlin fleet --context staging whoami"]),
    (&["fleet", "logout"], &["dunlin fleet logout", "dunlin fleet logout staging"]),
    (&["fleet", "root"], &["dunlin fleet root", "dunlin fleet root --keys keys"]),
    (
        &["fleet", "publish"],
        &["dunlin fleet publish model.dunlin --keys keys", "dunlin fleet publish model.dunlin --release model.release"],
    ),
    (
        &["fleet", "packages"],
        &[
            "dunlin fleet packages",
            "dunlin fleet packages digits@2 --telemetry 24",
            "dunlin fleet packages e627fa433d43 -o digits.dunlin",
        ],
    ),
    (&["fleet", "rollout"], &["dunlin fleet rollout start spring --candidate digits@2"]),
    (&["fleet", "rollout", "plan"], &["dunlin fleet rollout plan --candidate digits@2 --strategy shadow:16"]),
    (&["fleet", "rollout", "start"], &["dunlin fleet rollout start spring --candidate digits@2"]),
    (&["fleet", "rollout", "status"], &["dunlin fleet rollout status", "dunlin fleet rollout status spring --watch"]),
    (&["fleet", "rollout", "pause"], &["dunlin fleet rollout pause spring"]),
    (&["fleet", "rollout", "resume"], &["dunlin fleet rollout resume spring"]),
    (&["fleet", "rollout", "approve"], &["dunlin fleet rollout approve spring"]),
    (&["fleet", "rollout", "advance"], &["dunlin fleet rollout advance spring --yes"]),
    (&["fleet", "rollout", "waive"], &["dunlin fleet rollout waive spring"]),
    (&["fleet", "rollout", "retry"], &["dunlin fleet rollout retry spring"]),
    (&["fleet", "rollout", "abort"], &["dunlin fleet rollout abort spring --revert"]),
    (
        &["fleet", "devices"],
        &[
            "dunlin fleet devices --model digits --census",
            "dunlin fleet devices --running e627fa433d43",
            "dunlin fleet devices 4f1c --set-ring 1",
        ],
    ),
    (
        &["fleet", "stop"],
        &["dunlin fleet stop --reason 'wrong labels at site 7'", "dunlin fleet stop --model digits --yes"],
    ),
    (&["fleet", "resume"], &["dunlin fleet resume", "dunlin fleet resume --model digits"]),
    (&["fleet", "serving"], &["dunlin fleet serving"]),
    (&["fleet", "flags"], &["dunlin fleet flags"]),
    (
        &["fleet", "flags", "set"],
        &[
            "dunlin fleet flags set count-bicycles --off --rule 'region = eu and firmware >= 2.1 -> on'",
            "dunlin fleet flags set count-bicycles --on --percent 20 --dry-run",
            "dunlin fleet flags set threshold --variant low=0.4 --variant high=0.7 --value low",
        ],
    ),
    (&["fleet", "flags", "delete"], &["dunlin fleet flags delete count-bicycles"]),
    (&["fleet", "flags", "preview"], &["dunlin fleet flags preview count-bicycles"]),
    (&["fleet", "flags", "schema"], &["dunlin fleet flags schema"]),
    (&["fleet", "flags", "show"], &["dunlin fleet --json flags show"]),
    (&["fleet", "flags", "put"], &["dunlin fleet flags put flags.json"]),
    (&["fleet", "flags", "kill"], &["dunlin fleet flags kill new-camera"]),
    (&["fleet", "flags", "revive"], &["dunlin fleet flags revive new-camera"]),
    (&["fleet", "drift"], &["dunlin fleet drift --package digits@2 --hours 24", "dunlin fleet drift --alarms"]),
    (&["fleet", "tokens"], &["dunlin fleet tokens"]),
    (&["fleet", "tokens", "list"], &["dunlin fleet tokens list"]),
    (&["fleet", "tokens", "new"], &["dunlin fleet tokens new ci operator"]),
    (&["fleet", "tokens", "revoke"], &["dunlin fleet tokens revoke ci"]),
    (&["fleet", "tenant"], &["dunlin fleet tenant --poll-seconds 600 --two-person true"]),
    (&["fleet", "tenants"], &["dunlin fleet tenants"]),
    (&["fleet", "tenants", "list"], &["dunlin fleet tenants list"]),
    (&["fleet", "tenants", "put"], &["dunlin fleet tenants put acme --title Acme --set max_devices=5000"]),
    (&["fleet", "alerts"], &["dunlin fleet alerts --open", "dunlin fleet alerts --acknowledge 7"]),
    (&["fleet", "audit"], &["dunlin fleet audit --limit 20", "dunlin fleet audit --verify"]),
    (&["flock"], &["dunlin flock --devices 200 --root keys/1.root", "dunlin flock --devices 100000 --stand-in"]),
    (&["demo"], &["dunlin demo", "dunlin demo --serve"]),
    (
        &["completions"],
        &["dunlin completions bash > ~/.local/share/bash-completion/completions/dunlin", "dunlin completions fish"],
    ),
    (&["man"], &["dunlin man ~/.local/share/man/man1"]),
];

fn with(command: Command, path: &[&str], lines: &[&str]) -> Command {
    let Some((first, rest)) = path.split_first() else {
        let before = command.get_after_help().map(|text| format!("\n\n{text}")).unwrap_or_default();
        return command.after_help(format!("Examples:\n  {}{before}", lines.join("\n  ")));
    };
    // A test finds paths that name no command.
    if command.find_subcommand(first).is_none() {
        return command;
    }
    command.mut_subcommand(first, |sub| with(sub, rest, lines))
}

/// Adds the examples to a command line.
#[must_use]
pub fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, lines)| with(command, path, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a line at spaces outside of single quotes. What follows `<` or `>` is for the shell.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (n, part) in line.split('\'').enumerate() {
            if n % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words.into_iter().take_while(|word| word != ">" && word != "<").collect()
    }

    #[test]
    fn every_example_parses() {
        for (path, lines) in EXAMPLES {
            for line in *lines {
                let matches = crate::app::command().try_get_matches_from(words(line));
                let mut at = &matches.unwrap_or_else(|e| panic!("{line}: {e}"));
                for name in *path {
                    let (found, sub) = at.subcommand().unwrap_or_else(|| panic!("{line} is no example of {path:?}"));
                    assert_eq!(found, *name, "{line} is no example of {path:?}");
                    at = sub;
                }
            }
        }
    }

    fn leaves(command: &Command, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
        if !command.has_subcommands() {
            all.push(path.clone());
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            path.push(sub.get_name().to_owned());
            leaves(sub, path, all);
            path.pop();
        }
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let command = crate::app::command();
        let mut all = Vec::new();
        leaves(&command, &mut Vec::new(), &mut all);
        assert!(all.len() > 40);
        for path in all {
            let mut at = &command;
            for name in &path {
                at = at.find_subcommand(name).expect("a command");
            }
            let help = at.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  dunlin "), "`dunlin {}` has no example", path.join(" "));
        }
    }
}
