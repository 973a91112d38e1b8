//! Stop strings in text that comes in pieces.

/// Finds the first of several strings, across pieces. Text that may be the start of one is held back
/// until that is clear.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// A matcher for these strings; empty ones never match.
    pub fn new(stops: &[String]) -> StopMatcher {
        StopMatcher {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Takes a piece; returns the text before any stop string, and whether one was found.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop));
        if let Some(at) = first.min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let starts = self.held.char_indices().map(|(at, _)| at);
        let may_stop = |&at: &usize| {
            let rest = &self.held[at..];
            self.stops.iter().any(|stop| stop.starts_with(rest))
        };
        let certain = starts.into_iter().find(may_stop).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is held back, when no more pieces come.
    pub fn finish(self) -> String {
        self.held
    }
}
