//! The admin token, and the file that it is made in.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::Config;
use crate::setting::Secret;
use crate::store;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read, or holds no token.
    #[error("`admin.token_file` is {path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is nothing to sign sessions with.
    #[error("the system has no random numbers to sign sessions of browsers with")]
    Random,
    /// The same, since the store does not keep it.
    #[error("the key that sessions of browsers are signed with was not kept: {0}")]
    Store(store::Error),
    /// The file cannot be made.
    #[error("cannot make the file of `admin.token_file`, {path}: {problem}", path = path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
        /// What the user can do.
        hint: String,
    },
}

impl TokenError {
    /// What the user can do, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::File { .. } | Self::Random | Self::Store(_) => None,
            Self::Make { hint, .. } => Some(hint),
        }
    }
}

impl Config {
    /// The token that callers must send, if one is configured. With `make`, a missing file is made.
    ///
    /// # Errors
    /// If the file cannot be read or made, or is empty.
    pub fn resolve_token(&self, make: bool) -> Result<Option<Secret>, TokenError> {
        let Some(path) = &self.token_file else { return Ok(self.token.clone()) };
        let fail = |problem: String| TokenError::File { path: path.clone(), problem };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                let token = create(path).map_err(|error| {
                    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    let hint = store::unwritable(folder, &error, "admin.token_file");
                    TokenError::Make { path: path.clone(), problem: error.to_string(), hint }
                })?;
                tracing::warn!(path = %path.display(), "made an admin token; it is in {}", path.display());
                token
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(fail("it does not exist; `taskhook serve` makes it at its first start".into()));
            }
            read => read.map_err(|error| fail(error.to_string()))?,
        };
        let token = Secret::new(text.trim_end_matches(['\r', '\n']));
        if token.is_empty() {
            return Err(fail("it is empty; delete it, and the next start makes a new token".into()));
        }
        Ok(Some(token))
    }
}

/// Writes 32 random bytes to `path`, for its owner's eyes only.
fn create(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    Ok(token)
}
