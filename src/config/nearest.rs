//! Keys and variables that nothing reads, and what was probably meant.

use config::ValueKind;

use super::error::Error;
use super::load::Loader;
use super::place::{Path, Place, Step};
use super::read::Unknown;
use super::secret::TWIN;

/// All sections.
pub(super) const SECTIONS: [&str; 13] = [
    "log",
    "server",
    "admin",
    "store",
    "retention",
    "archive",
    "files",
    "outbound",
    "watch",
    "trace",
    "sources",
    "destinations",
    "routes",
];

/// The keys of fixed sections that the built-in configuration leaves out.
const WITHOUT_DEFAULT: [&str; 17] = [
    "admin.token",
    "admin.token_file",
    "admin.read_token",
    "admin.read_token_file",
    "retention.max_bytes",
    "archive.endpoint",
    "archive.region",
    "archive.access_key_id",
    "archive.secret_access_key",
    "archive.secret_access_key_file",
    "archive.session_token",
    "archive.session_token_file",
    "files.listen",
    "files.public_url",
    "trace.endpoint",
    "trace.headers",
    "trace.headers_file",
];

impl Loader<'_> {
    /// `TASKHOOK_SERVER_LISTEN` sets nothing, and nobody would see why. Other variables that begin with `TASKHOOK_` are left
    /// alone: Kubernetes makes some for a service of that name.
    pub(super) fn single_underscores(&self, errors: &mut Vec<Error>) {
        for name in self.inputs.env.keys().chain(self.dot_env.0.keys()) {
            let meant = self.fixed_keys().into_iter().map(|path| path.variable());
            if let Some(meant) = meant.into_iter().find(|meant| meant != name && meant.replace("__", "_") == *name) {
                errors.push(Error::new(format!("the variable `{name}` sets nothing")).hint(format!("its name is `{meant}`")));
            }
        }
    }

    /// The keys of the sections that are always there.
    fn fixed_keys(&self) -> Vec<Path> {
        let mut keys: Vec<_> = ["log", "server", "admin", "store", "retention", "archive", "files", "outbound", "watch", "trace"]
            .into_iter()
            .filter_map(|section| Some((section, self.defaults.get(section)?)))
            .flat_map(|(section, value)| match &value.kind {
                ValueKind::Table(table) => table.keys().map(|key| Path::of(section).key(key)).collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .chain(WITHOUT_DEFAULT.map(Path::of))
            .collect();
        // Of keys with one name, that of the section which most users set comes first.
        keys.sort_unstable_by_key(|path| {
            let section = SECTIONS.iter().position(|section| path.0.first() == Some(&Step::Key((*section).to_owned())));
            (section, path.clone())
        });
        keys
    }

    pub(super) fn unknown_sections(&mut self) {
        let mut names: Vec<_> = self.tree.keys().filter(|name| !SECTIONS.contains(&name.as_str())).cloned().collect();
        names.sort_unstable();
        for name in names {
            self.unknown(&Unknown { path: Path::of(&name), known: SECTIONS.to_vec() }, &[]);
        }
    }

    /// Notes a key that nothing reads, and the key that was probably meant.
    pub(super) fn unknown(&mut self, unknown: &Unknown, secrets: &[&str]) {
        let path = &unknown.path;
        let (Some(Step::Key(key)), Some(parent)) = (path.0.last(), path.parent()) else { return };
        let twins = secrets.iter().map(|secret| format!("{secret}{TWIN}"));
        let here = unknown.known.iter().map(|key| (*key).to_owned()).chain(twins);
        let nearest = here.map(|known| (strsim::normalized_damerau_levenshtein(key, &known), parent.key(&known)));
        let nearest = nearest.max_by(|one, other| one.0.total_cmp(&other.0)).filter(|(likeness, _)| *likeness >= 0.5);
        let elsewhere = self.fixed_keys().into_iter().find(|path| path.0.last() == Some(&Step::Key(key.clone())));
        let place = self.places.of(path);
        let hint = match (elsewhere, nearest) {
            (Some(known), _) | (None, Some((_, known))) => match place {
                Some(Place::Variable(_) | Place::DotEnv { .. }) => format!("the nearest variable is `{}`", known.variable()),
                _ => format!("the nearest key is `{known}`"),
            },
            (None, None) => {
                let known: Vec<_> = unknown.known.iter().map(|key| format!("`{key}`")).collect();
                format!("the keys here are {}", known.join(", "))
            }
        };
        let error = Error::at(place, format!("unknown key `{path}`")).hint(hint);
        self.errors.push(error);
    }
}
