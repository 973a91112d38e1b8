//! Numbers as people read them.

/// `123.4 MB`: powers of 1000, as file managers and disks count.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if count >= size {
            return format!("{:.1} {unit}", count / size);
        }
    }
    format!("{count} B")
}

/// `134.5 M`
pub fn count(count: u64) -> String {
    let count = count as f64;
    for (unit, size) in [("B", 1e9), ("M", 1e6), ("k", 1e3)] {
        if count >= size {
            return format!("{:.1} {unit}", count / size);
        }
    }
    count.to_string()
}

/// Three significant digits or whole numbers.
pub fn rate(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
