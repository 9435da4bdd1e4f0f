//! The admin token of a first start: an image can listen off loopback without a secret that all its copies share.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::ValueKind;

use super::Inputs;
use super::error::{Error, Errors};
use super::layer::cause;
use super::load::Loader;

/// Makes the file that `admin.token_file` names, if there is none: a new token, for its owner alone. To be called before
/// [`Config::load`](super::Config::load), by the command that serves. Returns the path as it is configured if it was made now.
///
/// # Errors
/// If the layers cannot be read, or the file cannot be made.
pub fn create_admin_token(inputs: &Inputs) -> Result<Option<PathBuf>, Errors> {
    let loader = Loader::new(inputs)?;
    let Some(ValueKind::Table(admin)) = loader.tree.get("admin").map(|admin| &admin.kind) else { return Ok(None) };
    let (Some(ValueKind::String(file)), None) = (admin.get("token_file").map(|file| &file.kind), admin.get("token")) else {
        return Ok(None);
    };
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(inputs.directory.join(file));
    match made.and_then(|mut made| made.write_all(format!("{}\n", token()).as_bytes()).and_then(|()| made.sync_all())) {
        Ok(()) => Ok(Some(PathBuf::from(file))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
                _ => cause(&error),
            };
            let error = Error::new(format!("cannot make the file `{file}` of `admin.token_file`: {reason}"));
            Err(error.hint("make the folder writable, or set `TASKHOOK__ADMIN__TOKEN` instead").into())
        }
    }
}

/// 256 random bits.
fn token() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers, or nothing here is safe");
    URL_SAFE_NO_PAD.encode(bytes)
}
