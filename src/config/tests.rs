//! What the configuration promises, tried from outside: directory, environment and flags in, a [`Config`] or a text out.

mod files;
mod layers;
mod mistakes;
mod rules;
mod secrets;

use std::path::Path;

use super::{Config, Flag, Inputs};

/// A working directory, and everything else that a configuration is read from.
struct Setup {
    directory: tempfile::TempDir,
    inputs: Inputs,
}

/// What makes a configuration whole: a Manus source that can verify.
const WHOLE: [(&str, &str); 2] =
    [("MANUS_API_KEY", "sk-very-secret"), ("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com")];

impl Setup {
    /// Nothing is set at all.
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inputs = Inputs { directory: directory.path().to_owned(), ..Inputs::default() };
        Self { directory, inputs }
    }

    /// Just enough is set to load.
    fn whole() -> Self {
        WHOLE.into_iter().fold(Self::empty(), |setup, (name, value)| setup.env(name, value))
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn write(self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn dot_env(self, text: &str) -> Self {
        self.write(".env", text)
    }

    /// `--config taskhook.toml`
    fn file(mut self, text: &str) -> Self {
        self.inputs.file = Some("taskhook.toml".into());
        self.write("taskhook.toml", text)
    }

    fn flag(mut self, name: &'static str, key: &'static str, value: &str) -> Self {
        self.inputs.flags.push(Flag { name, key, value: value.to_owned() });
        self
    }

    fn load(&self) -> Config {
        Config::load(&self.inputs).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// What the user reads when it does not load. No secret of these tests may be in it.
    fn errors(&self) -> String {
        let text = match Config::load(&self.inputs) {
            Ok(config) => panic!("this loads:\n{}", config.to_toml()),
            Err(errors) => errors.to_string(),
        };
        assert!(!text.contains("secret-"), "{text}");
        assert!(!text.contains("very-secret"), "{text}");
        text
    }
}
