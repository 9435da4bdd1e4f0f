//! What the README says is what the program does: its commands parse, its configuration loads, and it names every command and key.

use std::process::{Command, Output};

const README: &str = include_str!("../../README.md");

/// The program in an empty folder and environment, but for what a configuration needs at least.
fn taskhook(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .env("MANUS_API_KEY", "sk-test")
        .env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The blocks of code in this language, less what they are indented by.
fn blocks(language: &str) -> Vec<String> {
    blocks_of(README, language)
}

fn blocks_of(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<String>);
    for line in text.lines() {
        match (line.trim(), &mut open) {
            ("```", Some(_)) => blocks.extend(open.take()),
            (fence, None) if fence == format!("```{language}") => open = Some(String::new()),
            (_, Some(block)) => {
                block.push_str(line.trim_start());
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_command_in_it_is_one() {
    let blocks = blocks("sh");
    let commands: Vec<&str> = blocks
        .iter()
        .flat_map(|block| block.lines())
        .filter_map(|line| {
            let within = ["exec taskhook taskhook ", "exec taskhook-a taskhook ", "run --rm --build taskhook-a "];
            let within = within.iter().find_map(|before| line.split_once(before)).map(|(_, command)| command);
            line.strip_prefix("taskhook ").or(within)
        })
        .collect();
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        // The words of a command come before its first value; `--help` makes it parse and do nothing.
        let words: Vec<&str> = command.split(['"', '\'']).next().unwrap().split_whitespace().chain(["--help"]).collect();
        let output = taskhook(&words);
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
}

#[test]
fn it_names_every_command() {
    let help = text(&taskhook(&["--help"]).stdout);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"serve"), "{help}");
    for command in commands {
        assert!(README.contains(&format!("| `{command}")), "`{command}` is not in the table of commands");
    }
}

#[test]
fn every_configuration_in_it_loads() {
    let (readme, custom) = (blocks("toml"), blocks_of(include_str!("../../src/docs/custom.md"), "toml"));
    let senders = blocks_of(include_str!("../../src/docs/senders.md"), "toml");
    assert!(!readme.is_empty() && !custom.is_empty() && !senders.is_empty());
    for block in readme.into_iter().chain(custom).chain(senders) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("taskhook.toml");
        std::fs::write(&file, &block).unwrap();
        let output = taskhook(&["--config", file.to_str().unwrap(), "config"]);
        assert!(output.status.success(), "{block}\n{}", text(&output.stderr));
    }
}

#[test]
fn it_names_every_key_that_has_a_default() {
    let printed = text(&taskhook(&["config"]).stdout);
    let keys = printed.lines().filter_map(|line| line.split_once(" = ")).filter(|(_, value)| *value != "[]");
    for (key, _) in keys {
        let named = [format!("`{key}`"), format!(".{key}`"), format!("`{key} = ")].iter().any(|name| README.contains(name));
        assert!(named, "`{key}` is not in the README");
    }
}

#[test]
fn the_texts_of_senders_name_every_key() {
    let text = format!("{README}{}", include_str!("../../src/docs/custom.md"));
    for provider in taskhook::provider::PROVIDERS {
        for key in taskhook::provider::Config::keys(provider) {
            assert!(text.contains(&format!("`{key}`")), "`{key}` of {provider} is explained nowhere");
        }
    }
}

#[test]
fn what_it_links_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.starts_with("http")) {
        assert!(root.join(link.split('#').next().unwrap()).exists(), "{link}");
    }
}
