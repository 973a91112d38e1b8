//! The tile registers, by assembly: the intrinsics for them are not stable.

use std::arch::asm;

/// Tokens of a tile: its rows.
pub(super) const TOKENS: usize = 16;

/// Bytes of a row of weights or sums: 16 outputs of four bytes.
const ROW: usize = 64;

/// Bytes of a row of inputs.
const X_ROW: usize = 32;

/// Sums that are made at once: `[token][output]`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Sums(pub [[i32; 16]; TOKENS]);

/// One tile of inputs and one of weights: 32 columns of 16 tokens, `[token][column]`, and of 16
/// outputs, `[column / 4][output][column % 4]`.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub x: *const i8,
    pub weights: *const u8,
}

/// What multiplies tiles of inputs by tiles of weights, one part after the other:
/// `sums[token][output] = Σ x[token][column] · weights[output][column]`.
///
/// Loading, multiplying and storing take long but overlap, so a part is loaded three steps before its
/// sums are stored, and multiplied two before.
pub(super) trait Unit: Default {
    /// Prepares the calling thread.
    ///
    /// # Safety
    /// The CPU must have the unit, and the process be permitted to use it.
    unsafe fn configure(&mut self);

    /// Starts on the parts 0, 1 and 2.
    ///
    /// # Safety
    /// The thread must be configured, the pairs good for 512 bytes of each kind.
    unsafe fn begin(&mut self, first: [Pair; 3]);

    /// Step `part`, of which `TURN` is the remainder by 4: stores the sums of the part, multiplies the
    /// one after the next, and loads the one after that, `ahead`.
    ///
    /// # Safety
    /// After [`Unit::begin`] and a step for each part before; `ahead` must be good for 512 bytes of
    /// each kind.
    unsafe fn step<const TURN: usize>(&mut self, ahead: Pair, sums: &mut Sums);

    /// Empties the registers: a thread whose tiles are in use takes longer to switch.
    ///
    /// # Safety
    /// As [`Unit::configure`].
    unsafe fn release(&mut self);
}

/// The registers of the CPU: 0 to 3 for the sums of four parts, 4 and 5 for inputs, 6 and 7 for weights
/// of two.
///
/// They keep their values from one block of assembly to the next: each says that it changes them, so that the
/// compiler keeps nothing of its own there, and it has no use for them between; the kernel saves them when it
/// switches threads.
#[derive(Default)]
pub(super) struct Amx;

/// Assembly that may change every register.
macro_rules! tiles {
    ($($part:tt)*) => {
        asm!(
            $($part)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        )
    };
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each register.
    row_bytes: [u16; 8],
    reserved_row_bytes: [u16; 8],
    /// Rows of each register.
    rows: [u8; 8],
    reserved_rows: [u8; 8],
}

impl Configuration {
    /// Registers of these rows and bytes in each.
    pub const fn new(rows: [u8; 8], row_bytes: [u16; 8]) -> Configuration {
        Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes,
            reserved_row_bytes: [0; 8],
            rows,
            reserved_rows: [0; 8],
        }
    }

    /// Configures the calling thread.
    ///
    /// # Safety
    /// As [`Unit::configure`].
    pub unsafe fn load(&self) {
        // SAFETY: reads the 64 bytes of `self`, a palette that every CPU with AMX has.
        unsafe { tiles!("ldtilecfg [{}]", in(reg) self, options(readonly, nostack)) }
    }
}

static CONFIGURATION: Configuration = Configuration::new(
    [16, 16, 16, 16, 16, 16, 8, 8],
    [64, 64, 64, 64, 32, 32, 64, 64],
);

impl Unit for Amx {
    #[inline(always)]
    unsafe fn configure(&mut self) {
        // SAFETY: the caller's promises.
        unsafe { CONFIGURATION.load() }
    }

    #[inline(always)]
    unsafe fn begin(&mut self, first: [Pair; 3]) {
        // SAFETY: reads what the caller promises, by the shapes of `CONFIGURATION`.
        unsafe {
            tiles!(
                "tileloadd tmm4, [{x0} + {x_row}]",
                "tileloadd tmm6, [{w0} + {row}]",
                "tileloadd tmm5, [{x1} + {x_row}]",
                "tileloadd tmm7, [{w1} + {row}]",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm4, tmm6",
                "tilezero tmm1",
                "tdpbssd tmm1, tmm5, tmm7",
                "tileloadd tmm4, [{x2} + {x_row}]",
                "tileloadd tmm6, [{w2} + {row}]",
                x0 = in(reg) first[0].x,
                w0 = in(reg) first[0].weights,
                x1 = in(reg) first[1].x,
                w1 = in(reg) first[1].weights,
                x2 = in(reg) first[2].x,
                w2 = in(reg) first[2].weights,
                x_row = in(reg) X_ROW,
                row = in(reg) ROW,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn step<const TURN: usize>(&mut self, ahead: Pair, sums: &mut Sums) {
        macro_rules! step {
            ($store:literal, $dot:literal, $x:literal, $w:literal, $next_x:literal, $next_w:literal) => {
                tiles!(
                    concat!("tilezero ", $dot),
                    concat!("tdpbssd ", $dot, ", ", $x, ", ", $w),
                    concat!("tileloadd ", $next_x, ", [{x} + {x_row}]"),
                    concat!("tileloadd ", $next_w, ", [{weights} + {row}]"),
                    concat!("tilestored [{sums} + {row}], ", $store),
                    x = in(reg) ahead.x,
                    weights = in(reg) ahead.weights,
                    x_row = in(reg) X_ROW,
                    row = in(reg) ROW,
                    sums = in(reg) sums,
                    options(nostack, preserves_flags)
                )
            };
        }
        // SAFETY: reads and writes what the caller promises, by the shapes of `CONFIGURATION`.
        unsafe {
            match TURN {
                0 => step!("tmm0", "tmm2", "tmm4", "tmm6", "tmm5", "tmm7"),
                1 => step!("tmm1", "tmm3", "tmm5", "tmm7", "tmm4", "tmm6"),
                2 => step!("tmm2", "tmm0", "tmm4", "tmm6", "tmm5", "tmm7"),
                _ => step!("tmm3", "tmm1", "tmm5", "tmm7", "tmm4", "tmm6"),
            }
        }
    }

    #[inline(always)]
    unsafe fn release(&mut self) {
        // SAFETY: the caller's promises; what the registers hold is not needed any more.
        unsafe { tiles!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// The same registers in memory, for tests of the kernels on a CPU without tiles.
#[cfg(test)]
pub(super) struct Emulated {
    sums: [Sums; 4],
    x: [[[i8; X_ROW]; TOKENS]; 2],
    weights: [[[[i8; 4]; 16]; 8]; 2],
}

#[cfg(test)]
impl Default for Emulated {
    fn default() -> Emulated {
        Emulated {
            sums: [Sums([[0; 16]; TOKENS]); 4],
            x: [[[0; X_ROW]; TOKENS]; 2],
            weights: [[[[0; 4]; 16]; 8]; 2],
        }
    }
}

#[cfg(test)]
impl Emulated {
    /// # Safety
    /// As [`Unit::step`].
    unsafe fn load(&mut self, slot: usize, pair: Pair) {
        // SAFETY: 512 bytes of each, as the caller promises.
        unsafe {
            self.x[slot] = pair.x.cast::<[[i8; X_ROW]; TOKENS]>().read_unaligned();
            self.weights[slot] = pair.weights.cast::<[[[i8; 4]; 16]; 8]>().read_unaligned();
        }
    }

    fn dot(&mut self, sums: usize, slot: usize) {
        let weights = &self.weights[slot];
        for (x, sums) in self.x[slot].iter().zip(&mut self.sums[sums].0) {
            for (output, sum) in sums.iter_mut().enumerate() {
                let weight = |k: usize| i32::from(weights[k / 4][output][k % 4]);
                *sum = (0..X_ROW).map(|k| i32::from(x[k]) * weight(k)).sum();
            }
        }
    }
}

#[cfg(test)]
impl Unit for Emulated {
    unsafe fn configure(&mut self) {}

    unsafe fn begin(&mut self, first: [Pair; 3]) {
        // SAFETY: the caller's promises.
        unsafe {
            self.load(0, first[0]);
            self.load(1, first[1]);
            self.dot(0, 0);
            self.dot(1, 1);
            self.load(0, first[2]);
        }
    }

    unsafe fn step<const TURN: usize>(&mut self, ahead: Pair, sums: &mut Sums) {
        self.dot((TURN + 2) % 4, TURN % 2);
        // SAFETY: the caller's promises.
        unsafe { self.load((TURN + 1) % 2, ahead) };
        *sums = self.sums[TURN];
    }

    unsafe fn release(&mut self) {}
}
