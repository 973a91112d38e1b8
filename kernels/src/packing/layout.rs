//! Kinds of packed weights and the sizes that follow from them.

use std::fmt;
use std::str::FromStr;

/// Rows in a panel.
pub const PANEL: usize = 16;

/// Planes of a panel, and panels, start on multiples of this many bytes.
const ALIGN: usize = 64;

/// Columns that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// 32 columns.
    G32,
    /// 64 columns.
    G64,
    /// 128 columns.
    G128,
}

impl Group {
    /// Every group size.
    pub const ALL: [Group; 3] = [Group::G32, Group::G64, Group::G128];

    /// The number of columns.
    #[allow(clippy::len_without_is_empty, reason = "no group is empty")]
    pub const fn len(self) -> usize {
        match self {
            Group::G32 => 32,
            Group::G64 => 64,
            Group::G128 => 128,
        }
    }

    /// The group of that many columns.
    ///
    /// # Errors
    /// A size other than 32, 64 and 128.
    pub fn from_len(len: usize) -> Result<Group, PackingError> {
        let found = Group::ALL.into_iter().find(|group| group.len() == len);
        found.ok_or(PackingError::GroupSize { found: len })
    }
}

/// How the weights of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// INT8 codes, symmetric: `w = scale * code`, code in -128..=127.
    Q8 {
        /// Columns that share a scale.
        group: Group,
    },
    /// INT4 codes. Symmetric: `w = scale * (code - 8)`; with minimum: `w = scale * code + minimum`;
    /// code in 0..=15.
    Q4 {
        /// Columns that share a scale.
        group: Group,
        /// Whether there is a minimum per row and group.
        minimum: bool,
    },
    /// Codes of 3, 5 or 6 bits, symmetric: `w = scale * (code - 2^(bits - 1))`.
    Split {
        /// Bits of a code.
        bits: SplitBits,
        /// Columns that share a scale.
        group: Group,
    },
}

/// Widths of codes that are stored as planes of powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SplitBits {
    /// 2 + 1 bits.
    B3,
    /// 4 + 1 bits.
    B5,
    /// 4 + 2 bits.
    B6,
}

impl SplitBits {
    /// Every width.
    pub const ALL: [SplitBits; 3] = [SplitBits::B3, SplitBits::B5, SplitBits::B6];

    /// The number of bits.
    pub const fn bits(self) -> usize {
        match self {
            SplitBits::B3 => 3,
            SplitBits::B5 => 5,
            SplitBits::B6 => 6,
        }
    }
}

impl Kind {
    /// The group, for the quantized kinds.
    pub const fn group(self) -> Option<Group> {
        match self {
            Kind::F32 | Kind::F16 => None,
            Kind::Q8 { group } | Kind::Q4 { group, .. } | Kind::Split { group, .. } => Some(group),
        }
    }

    /// Whether the weights are integers that need quantized activations.
    pub const fn is_quantized(self) -> bool {
        self.group().is_some()
    }

    /// Whether there is a minimum per row and group beside the scale.
    pub const fn has_minimum(self) -> bool {
        matches!(self, Kind::Q4 { minimum: true, .. })
    }

    /// The lowest and the highest code that quantizers choose; (0, 0) for floats. (`q8` leaves -128
    /// out, so that weights of either sign have as many codes.)
    pub const fn code_range(self) -> (i8, i8) {
        match self {
            Kind::F32 | Kind::F16 => (0, 0),
            Kind::Q8 { .. } => (-127, 127),
            Kind::Q4 { .. } => (0, 15),
            Kind::Split { bits, .. } => (0, (1 << bits.bits()) - 1),
        }
    }

    /// The code that stands for zero; 0 for kinds with minimum and for floats.
    pub const fn zero_code(self) -> i8 {
        match self {
            Kind::Q4 { minimum: false, .. } => 8,
            Kind::Split { bits, .. } => 1 << (bits.bits() - 1),
            _ => 0,
        }
    }

    /// Widths of the planes that a code is cut into, lowest bits first.
    pub(crate) const fn planes(self) -> &'static [usize] {
        match self {
            Kind::Split { bits, .. } => match bits {
                SplitBits::B3 => &[2, 1],
                SplitBits::B5 => &[4, 1],
                SplitBits::B6 => &[4, 2],
            },
            Kind::Q4 { .. } => &[4],
            _ => &[8],
        }
    }

    /// Bits of one code.
    pub const fn code_bits(self) -> usize {
        match self {
            Kind::F32 => 32,
            Kind::F16 => 16,
            Kind::Q8 { .. } => 8,
            Kind::Q4 { .. } => 4,
            Kind::Split { bits, .. } => bits.bits(),
        }
    }

    /// Columns are padded to a multiple of this.
    const fn column_step(self) -> usize {
        match self.group() {
            Some(group) => group.len(),
            None => 4,
        }
    }
}

/// `f32`, `f16`, `q8g32`, `q4g64`, `q4mg128` (`m`: with minimum), `q6g32`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::F32 => f.pad("f32"),
            Kind::F16 => f.pad("f16"),
            Kind::Q8 { group } => f.pad(&format!("q8g{}", group.len())),
            Kind::Q4 {
                group,
                minimum: false,
            } => f.pad(&format!("q4g{}", group.len())),
            Kind::Q4 {
                group,
                minimum: true,
            } => f.pad(&format!("q4mg{}", group.len())),
            Kind::Split { bits, group } => f.pad(&format!("q{}g{}", bits.bits(), group.len())),
        }
    }
}

impl Kind {
    /// Every quantized kind.
    pub fn quantized() -> impl Iterator<Item = Kind> {
        let with_group = |group| {
            let split = SplitBits::ALL.map(|bits| Kind::Split { bits, group });
            let q4 = [false, true].map(|minimum| Kind::Q4 { group, minimum });
            [Kind::Q8 { group }].into_iter().chain(q4).chain(split)
        };
        Group::ALL.into_iter().flat_map(with_group)
    }
}

impl FromStr for Kind {
    type Err = PackingError;

    fn from_str(name: &str) -> Result<Kind, PackingError> {
        [Kind::F32, Kind::F16]
            .into_iter()
            .chain(Kind::quantized())
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| PackingError::UnknownKind {
                found: name.to_owned(),
            })
    }
}

/// What is wrong with a packed matrix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackingError {
    /// A group size that there is no kernel for.
    #[error("group size {found}: expected 32, 64 or 128")]
    GroupSize {
        /// The size asked for.
        found: usize,
    },
    /// A kind that this version does not know.
    #[error(
        "unknown kind {found:?}: expected f32, f16, q8g32, q6g32, q5g32, q4g32, q4mg32, q3g32 (or g64, g128)"
    )]
    UnknownKind {
        /// The name found.
        found: String,
    },
    /// A dimension of zero, or a size that does not fit the address space.
    #[error("a matrix of {rows} rows × {cols} columns is empty or too large to address")]
    Dimensions {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// The bytes are not as many as the layout needs.
    #[error("{kind} of {rows} × {cols} needs {expected} bytes, found {found}")]
    Length {
        /// The kind.
        kind: Kind,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
        /// Bytes that the layout needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The bytes do not start on a 64-byte boundary.
    #[error("packed weights must start on a 64-byte boundary")]
    Alignment,
}

/// Kind and shape of a packed matrix, with every size checked to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: Kind,
    rows: usize,
    cols: usize,
    padded_cols: usize,
    panel_bytes: usize,
}

impl Layout {
    /// The layout of a `rows` × `cols` matrix.
    ///
    /// # Errors
    /// A zero dimension, or a total size beyond `isize::MAX` bytes.
    pub fn new(kind: Kind, rows: usize, cols: usize) -> Result<Layout, PackingError> {
        Self::checked(kind, rows, cols).ok_or(PackingError::Dimensions { rows, cols })
    }

    fn checked(kind: Kind, rows: usize, cols: usize) -> Option<Layout> {
        if rows == 0 || cols == 0 {
            return None;
        }
        let padded_cols = cols.checked_next_multiple_of(kind.column_step())?;
        let code_bytes = padded_cols.checked_mul(PANEL * kind.code_bits() / 8)?;
        let plane = padded_cols / kind.column_step() * (PANEL * 2);
        let planes = usize::from(kind.is_quantized()) + usize::from(kind.has_minimum());
        let planes = plane.checked_next_multiple_of(ALIGN)?.checked_mul(planes)?;
        let panel_bytes = planes.checked_add(code_bytes)?;
        let total = panel_bytes.checked_mul(rows.div_ceil(PANEL))?;
        isize::try_from(total).ok()?;
        Some(Layout {
            kind,
            rows,
            cols,
            padded_cols,
            panel_bytes,
        })
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns (inputs, K).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Columns after padding to the group (for `f16` and `f32`, to 4).
    pub fn padded_cols(&self) -> usize {
        self.padded_cols
    }

    /// Groups along K; 0 for `f16` and `f32`.
    pub fn groups(&self) -> usize {
        self.kind
            .group()
            .map_or(0, |group| self.padded_cols / group.len())
    }

    /// Panels of [`PANEL`] rows.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Bytes of one panel.
    pub fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.panel_bytes * self.panels()
    }

    /// Bytes of the plane of scales (and of that of minimums).
    fn plane_bytes(&self) -> usize {
        (self.groups() * PANEL * 2).next_multiple_of(ALIGN)
    }

    /// Where the minimums start in a panel, if there are any. The scales start at 0.
    pub fn minimums_offset(&self) -> Option<usize> {
        self.kind.has_minimum().then(|| self.plane_bytes())
    }

    /// Where the codes start in a panel.
    pub fn codes_offset(&self) -> usize {
        let planes = usize::from(self.kind.is_quantized()) + usize::from(self.kind.has_minimum());
        planes * self.plane_bytes()
    }
}
