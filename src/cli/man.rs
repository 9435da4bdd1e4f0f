//! `taskhook man`: the manual pages, made of what `--help` says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Cli, Context, Error, Result};

/// What the page of the program says beside `--help`.
const MORE: &str = r#".SH ENVIRONMENT
.TP
\fBTASKHOOK_CONFIG\fR
The configuration file, as \fB\-\-config\fR.
.TP
\fBTASKHOOK__SECTION__KEY\fR
Any key of the configuration, such as \fBTASKHOOK__SERVER__LISTEN\fR. It goes over the file.
.TP
\fBRUST_LOG\fR
How much is logged, as \fB\-\-log\-level\fR.
.SH FILES
.TP
\fB.env\fR
Variables in the working directory; those of the environment go over them.
.SH "EXIT STATUS"
.TP
0
It was done.
.TP
1
It failed.
.TP
2
The command line or the configuration is wrong.
.TP
3
The store was refused; nothing was changed.
"#;

/// Print the manual page, or write one of each command into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write a page of each command into this folder, which is made if need be, such as `~/.local/share/man/man1`
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    let mut command = Cli::command();
    // So that each knows its whole name.
    command.build();
    let Some(folder) = &args.dir else { return Ok(context.out.write_all(&page(&command)?)?) };
    let folder = context.inputs.directory.join(folder);
    let refused = |path: &Path, error: &io::Error| {
        Error::failed(format!("cannot write {}: {error}", path.display())).hint("name a folder that can be written with `--dir`")
    };
    fs::create_dir_all(&folder).map_err(|error| refused(&folder, &error))?;
    let pages = pages(&command)?;
    for (name, page) in &pages {
        let path = folder.join(name);
        fs::write(&path, page).map_err(|error| refused(&path, &error))?;
    }
    Ok(writeln!(context.err, "Wrote {} pages: `man {}/taskhook.1` shows the first.", pages.len(), folder.display())?)
}

/// The page of `command` and those of all below it, each with the name of its file.
fn pages(command: &clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = vec![(Man::new(command.clone()).get_filename(), page(command)?)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages.extend(self::pages(below)?);
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(concat!("taskhook ", env!("CARGO_PKG_VERSION"))).manual("taskhook");
    let mut page = Vec::new();
    man.render(&mut page)?;
    if command.get_name() == "taskhook" {
        page.extend_from_slice(MORE.as_bytes());
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::tests::shell;
    use super::*;

    /// Every page, each with the name of its file.
    fn all() -> Vec<(String, String)> {
        let mut command = Cli::command();
        command.build();
        let text = |(name, page): (String, Vec<u8>)| (name, String::from_utf8(page).unwrap());
        pages(&command).unwrap().into_iter().map(text).collect()
    }

    /// What a formatter that is there says against a page; `None` where there is none.
    fn complaints(page: &str) -> Option<String> {
        let programs: [&[&str]; 2] =
            [&["mandoc", "-T", "lint", "-W", "error"], &["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z"]];
        programs.iter().find_map(|program| {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().ok()?;
            io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
            let told = child.wait_with_output().unwrap();
            Some([told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
        })
    }

    #[test]
    fn the_page_says_what_help_says_and_more() {
        let (exit, out, err) = shell(&["man"], &[]);
        assert_eq!((exit, err.as_str()), (0, ""));
        assert!(out.contains(".TH taskhook 1"), "{out}");
        for part in [".SH NAME", ".SH SYNOPSIS", "taskhook\\-stats(1)", ".SH \"EXIT STATUS\"", "TASKHOOK_CONFIG"] {
            assert!(out.contains(part), "{part}: {out}");
        }
    }

    #[test]
    fn every_command_has_a_page_and_every_page_is_well_formed() {
        let pages = all();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["taskhook.1", "taskhook-serve.1", "taskhook-tasks-create.1", "taskhook-man.1"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        let mut looked_at = 0;
        for (name, page) in &pages {
            // A line that begins with a dot is a request; no other kind than those of the macros may be there.
            for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
                let request = line[1..].split_whitespace().next().unwrap_or_default();
                let known = ["TH", "SH", "SS", "TP", "PP", "RS", "RE", "ie", "el", "br", "IP"].contains(&request);
                assert!(known, "{name}: {line}");
            }
            if let Some(told) = complaints(page) {
                assert!(told.is_empty(), "{name}: {told}");
                looked_at += 1;
            }
        }
        assert!(looked_at == 0 || looked_at == pages.len());
    }

    #[test]
    fn pages_are_written_where_the_user_says() {
        let folder = tempfile::tempdir().unwrap();
        let man = folder.path().join("share/man1");
        let (exit, out, err) = shell(&["man", "--dir", &man.display().to_string()], &[]);
        assert_eq!((exit, out.as_str()), (0, ""));
        assert_eq!(fs::read_dir(&man).unwrap().count(), all().len());
        assert!(err.starts_with(&format!("Wrote {} pages", all().len())), "{err}");
        let file = man.join("taskhook.1");
        let (exit, _, err) = shell(&["man", "--dir", &file.display().to_string()], &[]);
        assert_eq!(exit, 1);
        assert!(err.contains("cannot write") && err.contains("hint: name a folder"), "{err}");
    }
}
