//! `taskhook tasks create`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::client::{Client, Fault};
use super::super::output::{self, text};
use super::super::{Context, Error, Exit, Result, runtime};
use crate::action::MAX_ATTACHED;
use crate::text::one_line;

/// Create a task; prints its id and its address. It costs what the provider charges, and is tried once
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The source whose account pays, if there are several
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The provider's agent profile, such as `manus-1.6-lite`
    #[arg(long)]
    profile: Option<String>,
    /// The provider's id of the project that it is to belong to
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// A file with the JSON Schema of the structured output that is wanted
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A file that goes with it; may be given several times, at most 20 MB in all
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// Let the agent stop to ask; else it decides for itself
    #[arg(long)]
    interactive: bool,
    /// What is to be done
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prompt: String,
    /// Print the JSON of the admin API
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, client: &Client, context: &mut Context<'_>) -> Result {
    let directory = context.inputs.directory.clone();
    let schema = args.schema.as_deref().map(|path| read_schema(&directory, path)).transpose()?;
    let files = read_files(&directory, &args.attach)?;
    let Args { source, profile, project, interactive, prompt, .. } = args;
    let body = json!({"source": source, "profile": profile, "project": project, "schema": schema, "interactive": interactive,
        "prompt": prompt, "files": files});
    let created = runtime()?.block_on(client.post(&["tasks"], Some(&body))).map_err(|fault| not_created(client, &fault))?;
    if args.json {
        return Ok(output::json(context.out, &created)?);
    }
    writeln!(context.out, "{}", one_line(&text(&created, "task_id"), output::MOST))?;
    match text(&created, "url") {
        url if url.is_empty() => Ok(()),
        url => Ok(writeln!(context.out, "{}", one_line(&url, output::MOST))?),
    }
}

fn unusable(option: &str, path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::failed(format!("`{option}` {}: {reason}; nothing was created", one_line(&path.display().to_string(), 200)))
        .with_exit(Exit::Usage)
}

fn read_schema(directory: &Path, path: &Path) -> Result<Value> {
    let refuse = |reason: String| unusable("--schema", path, reason);
    let text = std::fs::read(directory.join(path)).map_err(|error| refuse(format!("cannot read it: {error}")))?;
    let schema: Value = serde_json::from_slice(&text).map_err(|error| refuse(format!("it is not JSON: {error}")))?;
    if !schema.is_object() {
        return Err(refuse("it is no JSON Schema: it must be an object".to_owned()).into());
    }
    Ok(schema)
}

fn read_files(directory: &Path, paths: &[PathBuf]) -> Result<Vec<Value>> {
    let mut left = MAX_ATTACHED as u64;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let refuse = |reason: String| unusable("--attach", path, reason);
        let at = directory.join(path);
        let size = std::fs::metadata(&at).map_err(|error| refuse(format!("cannot read it: {error}")))?.len();
        left = left.checked_sub(size).ok_or_else(|| {
            let most = MAX_ATTACHED / 1_000_000;
            refuse(format!(
                "with it the files are larger than {most} MB in all, the most that the provider takes with a new task"
            ))
        })?;
        let content = std::fs::read(&at).map_err(|error| refuse(format!("cannot read it: {error}")))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| refuse("it has no name".to_owned()))?;
        files.push(json!({"name": name, "content_base64": BASE64_STANDARD.encode(content)}));
    }
    Ok(files)
}

/// Why there is no task, or nobody knows.
fn not_created(client: &Client, fault: &Fault) -> Error {
    let told = client.explain(fault);
    match fault {
        Fault::Lost(_) => {
            Error::failed(format!("{}; the task may have been created all the same, and this was not tried again", told.message))
                .hint("look at `taskhook tasks list` and at the provider before you ask again: a second task costs again")
        }
        _ => told,
    }
}
