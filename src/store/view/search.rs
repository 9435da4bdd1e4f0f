//! Looking for text, among the newest tasks and events.
//!
//! What must hold: the same is found in every database. So rows are compared here, where a letter is the same letter in each, and no more
//! of them than [`SEARCHED`].

/// How many tasks, and how many events, are looked through: the newest.
pub const SEARCHED: usize = 10_000;

/// The most events of tasks that are looked at for one page: a page that ends there says where to go on.
pub(in crate::store) const FOUND: usize = 20_000;

/// How many of the rows that were found are read at a time.
pub(in crate::store) const PORTION: usize = 200;

/// What is looked for.
#[derive(Clone, Debug)]
pub(in crate::store) struct Needle(String);

impl Needle {
    pub(in crate::store) fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// Whether one of `texts` holds it, in large letters or small.
    pub(in crate::store) fn is_in(&self, texts: &[Option<&str>]) -> bool {
        texts.iter().flatten().any(|text| text.to_lowercase().contains(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_large_or_small_and_signs_mean_themselves() {
        let found = |needle: &str, text: &str| Needle::new(needle).is_in(&[None, Some(text)]);
        assert!(found("ÄRGER", "Viel ärger hier") && found("r h", "ÄRGER HIER") && found("", "x"));
        assert!(found("100%", "all 100%") && !found("100%", "1000") && !found("a_c", "abc") && found("a_c", "xA_Cx"));
        assert!(!Needle::new("x").is_in(&[None, None]));
    }
}
