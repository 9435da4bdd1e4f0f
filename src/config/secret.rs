//! Secrets in files: `x_file` is read, and stands as `x` from then on, so that the components know only `x`.

use std::path::Path as FilePath;

use config::{Map, Value, ValueKind};

use super::error::Error;
use super::layer::cause;
use super::place::{Path, Places};

/// What ends the name of a key that holds the path of a file.
pub(super) const TWIN: &str = "_file";

/// Puts the contents of each `x_file` of `section` in the place of `x`. Returns those that failed.
pub(super) fn resolve(
    section: &mut Map<String, Value>,
    at: &Path,
    secrets: &[&'static str],
    directory: &FilePath,
    places: &mut Places,
    errors: &mut Vec<Error>,
) -> Vec<Path> {
    let mut failed = Vec::new();
    for secret in secrets {
        let twin = format!("{secret}{TWIN}");
        let (secret_at, twin_at) = (at.key(secret), at.key(&twin));
        let file = section.remove(&twin);
        let error = match (section.get(*secret), file) {
            (Some(_), Some(_)) => both(&secret_at, &twin_at, places),
            (Some(value), None) if is_empty(value) => empty(&secret_at, places),
            (None, Some(file)) => match contents(&file, directory) {
                Ok(contents) => {
                    section.insert((*secret).to_owned(), Value::new(None, contents));
                    if let Some(place) = places.of(&twin_at).cloned() {
                        places.set(secret_at, place);
                    }
                    continue;
                }
                Err(reason) => Error::at(places.of(&twin_at), format!("`{twin_at}`: {reason}")),
            },
            (_, None) => continue,
        };
        section.remove(*secret);
        errors.push(error);
        failed.push(at.key(secret));
    }
    failed
}

/// A secret that is set in two ways.
pub(super) fn both(secret: &Path, twin: &Path, places: &Places) -> Error {
    let place = |path| places.of(path).map(ToString::to_string).unwrap_or_default();
    Error::new(format!("`{secret}` ({}) and `{twin}` ({}) are both set", place(secret), place(twin)))
        .hint("keep one of the two; a variable that is empty counts as not set")
}

/// A secret that nobody has to know.
pub(super) fn empty(secret: &Path, places: &Places) -> Error {
    Error::at(places.of(secret), format!("`{secret}` is empty"))
        .hint("set it, or remove the line: an empty secret would let everybody in")
}

/// The text of the file, without the one line end that editors and `echo` put behind it.
fn contents(file: &Value, directory: &FilePath) -> Result<String, String> {
    let ValueKind::String(file) = &file.kind else { return Err("must be the path of a file".to_owned()) };
    let text =
        std::fs::read_to_string(directory.join(file)).map_err(|error| format!("cannot read `{file}`: {}", cause(&error)))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if text.trim().is_empty() {
        return Err(format!("the file `{file}` is empty"));
    }
    Ok(text.to_owned())
}

fn is_empty(value: &Value) -> bool {
    match &value.kind {
        // A list in text: what is between the commas counts.
        ValueKind::String(text) => text.split(',').all(|item| item.trim().is_empty()),
        ValueKind::Array(items) => items.is_empty() || items.iter().any(is_empty),
        _ => false,
    }
}
