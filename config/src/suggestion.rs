//! What was meant by a word that is not known.

/// The nearest of `known` to `word`, if it is near enough to be meant: a third of
/// its letters may differ, at least one and at most three.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|known| (strsim::osa_distance(known, word), known))
        .min()
        .filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3))
        .map(|(_, known)| known)
}
