//! `taskhook completions`: what the shell needs to complete our commands.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Context, Result};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    // Into memory first: the generator panics where a write fails, and a closed pipe is no reason to.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taskhook", &mut script);
    Ok(context.out.write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::shell;

    #[test]
    fn every_shell_has_a_script_that_knows_the_commands() {
        for name in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let (exit, out, err) = shell(&["completions", name], &[]);
            assert_eq!((exit, err.as_str()), (0, ""));
            assert!(out.contains("completions"), "{name}");
        }
    }
}
