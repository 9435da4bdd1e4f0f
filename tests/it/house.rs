//! The rules of this repository that no compiler knows: which module may import which, how long a file may grow, what may lie at
//! the top, what never stays in the tree.
//!
//! Every rule is a pure function over text that returns its complaints. It is run on the tree, which must give none, and on small
//! bad inputs, which must be caught: a rule that cannot fail proves nothing.

mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use source::Source;

/// The modules, lowest first. A module imports only modules of earlier rows; those of one row do not know each other.
const RANKS: &[&[&str]] = &[
    &["clock", "setting", "text"],
    &["markdown", "public_url", "retry", "task"],
    &["event", "http"],
    &["postgres", "rate", "signature", "template", "telemetry"],
    &["provider", "store", "archive", "route", "simulator"],
    &["destination", "keys", "action"],
    &["receive", "worker", "admin", "upkeep"],
    &["server"],
    &["config"],
    &["app"],
    &["cli"],
];

/// Modules that the table has a place for before the source has them.
const PLANNED: &[&str] = &[];

/// The most lines a source file may have, without its tests.
const LINES_MAX: usize = 420;

/// All that may lie at the top of the repository.
const TOP: &[&str] = &[
    ".ci",
    ".dockerignore",
    ".env.example",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "config",
    "deny.toml",
    "rustfmt.toml",
    "src",
    "tests",
];

/// Marks of unfinished work. Written in two pieces, so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("#[ig", "nore"),
];

/// What only one machine, one person's notes or one mirror knows: it means nothing to whoever clones this.
const PRIVATE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt"),
    concat!("sha", "red/reference"),
    concat!("sha", "red/samples"),
    concat!("sha", "red/tools"),
    concat!("DESIGN", ".md"),
    concat!("INTERFACES", ".md"),
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("deb.debian", ".org"),
];

/// One file of the repository, its path relative to the top, with `/`.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// The top-level module that the file belongs to; none for the two roots and for what is not the library's Rust.
    fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        let first = inner.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (self.is_rust() && !matches!(inner, "lib.rs" | "main.rs")).then_some(name)
    }

    /// Whether all of it is test code, by its place.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|row| row.contains(&module))
}

/// Imports of a module that does not stand lower, and modules without a place.
fn rank_complaints(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let Some(module) = file.module() else { continue };
        let Some(own) = rank(module) else {
            complaints.push(format!("{}: module `{module}` has no rank; give it a place in RANKS", file.path));
            continue;
        };
        if file.is_test() {
            continue;
        }
        for (line, imported) in Source::new(&file.text).imports() {
            match rank(&imported) {
                _ if imported == module => {}
                Some(theirs) if theirs < own => {}
                Some(_) => complaints
                    .push(format!("{}:{line}: `{module}` imports `{imported}`, which does not stand below it", file.path)),
                None => complaints.push(format!("{}:{line}: `{module}` imports `{imported}`, which has no rank", file.path)),
            }
        }
    }
    complaints
}

/// Names in the table that no file stands for, so that the table tells the truth.
fn stale_ranks(files: &[File]) -> Vec<String> {
    let modules: BTreeSet<&str> = files.iter().filter_map(File::module).collect();
    let named = RANKS.iter().copied().flatten().filter(|name| !modules.contains(*name) && !PLANNED.contains(name));
    let late = PLANNED.iter().filter(|name| modules.contains(*name));
    named
        .map(|name| format!("RANKS has `{name}`, the source has not"))
        .chain(late.map(|name| format!("`{name}` is there: take it out of PLANNED")))
        .collect()
}

/// Source files that have grown too long.
fn size_complaints(files: &[File]) -> Vec<String> {
    let sources = files.iter().filter(|file| file.path.starts_with("src/") && file.is_rust() && !file.is_test());
    sources
        .filter_map(|file| {
            let lines = Source::new(&file.text).lines_without_tests();
            (lines > LINES_MAX)
                .then(|| format!("{}: {lines} lines without its tests, more than {LINES_MAX}: where is the seam?", file.path))
        })
        .collect()
}

/// What lies at the top and does not belong there.
fn top_complaints(files: &[File]) -> Vec<String> {
    let entries: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    let strangers = entries.into_iter().filter(|entry| !TOP.contains(entry));
    strangers.map(|entry| format!("`{entry}` does not belong at the top of the repository")).collect()
}

/// Lines that hold what must not stay in the tree. Payloads in `tests/data` are other people's words; the lock file names its
/// registry.
fn text_complaints(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let own_words = !file.path.starts_with("tests/data/");
        for (number, line) in (1..).zip(file.text.lines()) {
            let unfinished = UNFINISHED.iter().filter(|_| own_words);
            let private = PRIVATE.iter().filter(|_| file.path != "Cargo.lock");
            let found = unfinished.chain(private).filter(|needle| line.contains(**needle));
            complaints.extend(found.map(|needle| format!("{}:{number}: `{needle}`", file.path)));
        }
    }
    complaints
}

/// Test files that `tests/it/main.rs` does not name: they would never run.
fn orphan_complaints(files: &[File]) -> Vec<String> {
    let main = files.iter().find(|file| file.path == "tests/it/main.rs").map_or("", |file| &file.text);
    let topics: BTreeSet<&str> = files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(|file| file.path.strip_prefix("tests/it/"))
        .map(|inner| inner.split('/').next().unwrap_or(inner))
        .map(|first| first.strip_suffix(".rs").unwrap_or(first))
        .filter(|topic| *topic != "main")
        .collect();
    let orphans = topics.into_iter().filter(|topic| !main.lines().any(|line| line.trim() == format!("mod {topic};")));
    orphans.map(|topic| format!("tests/it/main.rs does not name `{topic}`: its tests never run")).collect()
}

/// Every file of the repository that is text: what git tracks, or all there is where there is no checkout.
fn tree() -> Vec<File> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed =
        Command::new("git").arg("-C").arg(top).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output();
    let paths = match listed {
        Ok(output) if output.status.success() && top.join(".git").exists() => {
            String::from_utf8(output.stdout).expect("paths are UTF-8").split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(top).expect("the tree can be read"),
    };
    // A path can be listed and gone: removed, the removal not committed yet.
    let read = |path: String| {
        fs::read(top.join(&path)).ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| File { path, text })
    };
    let files: Vec<File> = paths.into_iter().filter_map(read).collect();
    assert!(
        files.iter().any(|file| file.path == "src/lib.rs"),
        "no src/lib.rs under {}: nothing would be checked",
        top.display()
    );
    files
}

/// The files below `top`, without what builds, runs and checkouts leave there.
fn walk(top: &Path) -> io::Result<Vec<String>> {
    let (mut paths, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().replace('\\', "/");
            match entry.file_type()? {
                kind if kind.is_dir() && !matches!(name.as_str(), ".git" | "target" | "data") => folders.push(path),
                kind if kind.is_file() && name != ".env" => paths.push(name),
                _ => {}
            }
        }
    }
    Ok(paths)
}

#[track_caller]
fn no_complaints(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[track_caller]
fn complains(complaints: &[String], words: &str) {
    assert!(complaints.len() == 1 && complaints[0].contains(words), "wanted one complaint with {words:?}, got {complaints:?}");
}

#[test]
fn modules_import_only_lower_ranks() {
    no_complaints(&rank_complaints(&tree()));
}

#[test]
fn every_rank_stands_for_a_module() {
    no_complaints(&stale_ranks(&tree()));
}

#[test]
fn no_file_is_too_long() {
    no_complaints(&size_complaints(&tree()));
}

#[test]
fn nothing_strange_lies_at_the_top() {
    no_complaints(&top_complaints(&tree()));
}

#[test]
fn no_unfinished_work_and_no_private_name_is_left() {
    no_complaints(&text_complaints(&tree()));
}

#[test]
fn every_test_file_is_run() {
    no_complaints(&orphan_complaints(&tree()));
}

#[test]
fn the_walk_finds_what_git_lists() {
    let walked: BTreeSet<String> =
        walk(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the tree can be read").into_iter().collect();
    for file in tree() {
        assert!(walked.contains(&file.path), "{}", file.path);
    }
}

#[test]
fn an_import_of_a_higher_module_is_caught() {
    complains(
        &rank_complaints(&[File::new("src/store/mod.rs", "use crate::worker::Job;\n")]),
        "src/store/mod.rs:1: `store` imports `worker`",
    );
}

#[test]
fn an_import_of_the_same_rank_is_caught() {
    complains(
        &rank_complaints(&[File::new("src/route/mod.rs", "\nuse crate::store;\n")]),
        "src/route/mod.rs:2: `route` imports `store`",
    );
}

#[test]
fn an_import_of_a_lower_or_its_own_module_is_fine() {
    no_complaints(&rank_complaints(&[File::new("src/route/mod.rs", "use crate::{event::Facts, route::envelope};\n")]));
}

#[test]
fn a_module_without_a_rank_is_caught() {
    complains(&rank_complaints(&[File::new("src/helpers/mod.rs", "")]), "`helpers` has no rank");
    complains(&rank_complaints(&[File::new("src/app.rs", "use crate::helpers;")]), "imports `helpers`, which has no rank");
}

#[test]
fn tests_stand_outside_the_ranks() {
    let inline = "#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n";
    no_complaints(&rank_complaints(&[File::new("src/task.rs", inline), File::new("src/store/tests.rs", "use crate::cli;")]));
}

#[test]
fn a_rank_without_a_module_is_caught() {
    let modules = RANKS.iter().copied().flatten().filter(|name| !PLANNED.contains(name) && **name != "cli");
    let files: Vec<File> = modules.map(|name| File::new(&format!("src/{name}/mod.rs"), "")).collect();
    complains(&stale_ranks(&files), "RANKS has `cli`");
}

#[test]
fn a_long_file_is_caught() {
    let long = "//! A line.\n".repeat(LINES_MAX + 1);
    complains(&size_complaints(&[File::new("src/app.rs", &long)]), "421 lines");
}

#[test]
fn tests_do_not_make_a_file_long() {
    let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // A line.\n".repeat(LINES_MAX + 1));
    no_complaints(&size_complaints(&[File::new("src/app.rs", &tested)]));
}

#[test]
fn code_after_the_tests_still_counts() {
    let sandwich = format!("#[cfg(test)]\nmod tests {{}}\n{}", "// A line.\n".repeat(LINES_MAX + 1));
    complains(&size_complaints(&[File::new("src/app.rs", &sandwich)]), "421 lines");
}

#[test]
fn a_stranger_at_the_top_is_caught() {
    complains(&top_complaints(&[File::new("scripts/deploy.sh", ""), File::new("src/lib.rs", "")]), "`scripts`");
}

#[test]
fn unfinished_work_is_caught() {
    for mark in UNFINISHED {
        complains(&text_complaints(&[File::new("src/app.rs", &format!("x\n {mark}\n"))]), "src/app.rs:2");
        no_complaints(&text_complaints(&[File::new("tests/data/manus/x.json", mark)]));
    }
}

#[test]
fn private_names_are_caught() {
    for name in PRIVATE {
        complains(&text_complaints(&[File::new("README.md", &format!("see {name}x"))]), "README.md:1");
        no_complaints(&text_complaints(&[File::new("Cargo.lock", name)]));
    }
}

#[test]
fn an_orphan_test_is_caught() {
    let files = [
        File::new("tests/it/main.rs", "mod house;\n"),
        File::new("tests/it/house.rs", ""),
        File::new("tests/it/lost/mod.rs", ""),
    ];
    complains(&orphan_complaints(&files), "`lost`");
}
