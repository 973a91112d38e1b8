//! SHA-256 sums as people write them.

/// A sum in hexadecimal digits.
pub fn hex(sum: impl AsRef<[u8]>) -> String {
    let digits = |byte: &u8| format!("{byte:02x}");
    sum.as_ref().iter().map(digits).collect()
}
