//! Metadata with types: errors name the key, what was expected and what was found.

use super::reader::{Contents, Value};

/// Typed reads.
impl Contents {
    fn required<T>(&self, key: &str, found: Option<T>) -> Result<T, String> {
        found.ok_or_else(|| format!("metadata {key} is missing"))
    }

    fn wrong(key: &str, expected: &str, found: &Value) -> String {
        format!("metadata {key} is {}: expected {expected}", found.kind())
    }

    fn plain(key: &str, value: i128) -> Result<usize, String> {
        usize::try_from(value)
            .ok()
            .filter(|&value| value < 1 << 40)
            .ok_or_else(|| format!("metadata {key} is {value}: expected 0 to 2^40"))
    }

    /// A text, if it is there.
    ///
    /// # Errors
    /// A value of another type, as all of these.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(key, "a string", other)),
        }
    }

    /// A count, if it is there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn count(&self, key: &str) -> Result<Option<usize>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(value)) => Self::plain(key, *value).map(Some),
            // Some files have one per layer.
            Some(Value::Ints(values)) => match values.first() {
                Some(&first) if values.iter().all(|&value| value == first) => {
                    Self::plain(key, first.into()).map(Some)
                }
                _ => Err(format!(
                    "metadata {key} differs between layers: not supported"
                )),
            },
            Some(other) => Err(Self::wrong(key, "an integer", other)),
        }
    }

    /// A count that must be there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn required_count(&self, key: &str) -> Result<usize, String> {
        self.required(key, self.count(key)?)
    }

    /// A float (or integer), if it is there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn float(&self, key: &str) -> Result<Option<f32>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value as f32)),
            Some(Value::Int(value)) => Ok(Some(*value as f32)),
            Some(other) => Err(Self::wrong(key, "a float", other)),
        }
    }

    /// A bool, if it is there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(Self::wrong(key, "a bool", other)),
        }
    }

    /// Texts, if they are there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) => Err(Self::wrong(key, "an array of strings", other)),
        }
    }

    /// Texts that must be there.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn required_texts(&self, key: &str) -> Result<&[String], String> {
        self.required(key, self.texts(key)?)
    }

    /// Integers, if they are there; `len` of them.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn ints(&self, key: &str, len: usize) -> Result<Option<&[i64]>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Ints(values)) if values.len() == len => Ok(Some(values)),
            Some(Value::Ints(values)) => Err(format!(
                "metadata {key} has {} elements: expected {len}, one for each token",
                values.len()
            )),
            Some(other) => Err(Self::wrong(key, "an array of integers", other)),
        }
    }

    /// Floats that must be there; `len` of them.
    ///
    /// # Errors
    /// As [`Contents::text`].
    pub fn required_floats(&self, key: &str, len: usize) -> Result<&[f32], String> {
        match self.metadata.get(key) {
            None => Err(format!("metadata {key} is missing")),
            Some(Value::Floats(values)) if values.len() == len => Ok(values),
            Some(Value::Floats(values)) => Err(format!(
                "metadata {key} has {} elements: expected {len}, one for each token",
                values.len()
            )),
            Some(other) => Err(Self::wrong(key, "an array of floats", other)),
        }
    }
}
