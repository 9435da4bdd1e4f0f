//! The `taskhook` program: hands the process over to [`taskhook::cli`], and its verdict back to the shell.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use taskhook::cli::{self, World};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut typed = io::stdin().lock();
    let world = World {
        arguments: std::env::args_os().collect(),
        env: environment(),
        directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        terminal: io::stderr().is_terminal(),
        out_terminal: io::stdout().is_terminal(),
        width: rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|columns| *columns > 0),
        input: if asked { Some(&mut typed) } else { None },
    };
    cli::run(world).into()
}

/// A variable that is not UTF-8 is taken with its bad bytes replaced: it then fails in sight, instead of counting as unset.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
