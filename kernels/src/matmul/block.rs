//! What a kernel is given: consecutive panels of one matrix, and a few rows of input.

use crate::activations::ACTIVATION_GROUP;
use crate::engine::MatmulInput;
use crate::packing::{Layout, PackedMatrix};
use std::ops::Range;

/// A kernel for a fixed number of tokens (`N` in its name): writes the 16 outputs of each panel
/// `p` and token `t` to `out + t · stride + 16 · p`.
///
/// # Safety
/// The kernel's ISA must be available, `out` valid for those writes, and the block must have `N`
/// tokens and the kind that the kernel is for.
pub(crate) type Micro = unsafe fn(block: &Block, out: *mut f32, stride: usize);

/// A kernel for any number of tokens from a least one on; otherwise as [`Micro`].
///
/// # Safety
/// As [`Micro`], for a block of `tokens` tokens.
pub(crate) type ManyTokens = unsafe fn(block: &Block, tokens: usize, out: *mut f32, stride: usize);

/// Consecutive panels and some tokens. Every pointer is good for the counts beside it: the slices
/// are cut, with checks, where a block is made.
pub(crate) struct Block {
    /// Whether the panels are read for the first time, so that what follows is to be asked for
    /// early.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    pub streams: bool,
    /// First byte of the first panel.
    pub panels: *const u8,
    /// Number of panels.
    pub count: usize,
    /// Bytes from one panel to the next.
    pub panel_bytes: usize,
    /// Start of the minimums in a panel (0 without).
    pub minimums: usize,
    /// Start of the codes in a panel.
    pub codes: usize,
    /// Groups of weights along K.
    pub groups: usize,
    /// Groups of activations in a group of weights: 1, 2 or 4.
    pub parts: usize,
    /// Columns, for float kinds.
    pub cols: usize,
    /// Floats of the first token, `[token][cols]`.
    pub x: *const f32,
    /// Codes of the first token, `[token][x_stride]`.
    pub x_codes: *const i8,
    /// Scales of the first token, `[token][x_stride / 32]`.
    pub x_scales: *const f32,
    /// Sums of the first token, `[token][x_stride / 32]`.
    pub x_sums: *const i32,
    /// Codes per token.
    pub x_stride: usize,
}

impl Block {
    /// The panels `panels` of `weights` and the tokens `rows` of `input`, all bounds checked.
    pub fn new(
        weights: &PackedMatrix,
        panels: Range<usize>,
        input: MatmulInput,
        rows: Range<usize>,
    ) -> Block {
        let layout: &Layout = weights.layout();
        let mut block = Block {
            streams: false,
            panels: weights.panels(panels.clone()).as_ptr(),
            count: panels.len(),
            panel_bytes: layout.panel_bytes(),
            minimums: layout.minimums_offset().unwrap_or(0),
            codes: layout.codes_offset(),
            groups: layout.groups(),
            parts: layout
                .kind()
                .group()
                .map_or(0, |group| group.len() / ACTIVATION_GROUP),
            cols: layout.cols(),
            x: input.rows[rows.start * input.cols..rows.end * input.cols].as_ptr(),
            x_codes: std::ptr::null(),
            x_scales: std::ptr::null(),
            x_sums: std::ptr::null(),
            x_stride: 0,
        };
        if let Some(quantized) = input.quantized.filter(|_| layout.kind().is_quantized()) {
            let stride = quantized.stride;
            let groups = stride / ACTIVATION_GROUP;
            block.x_codes = quantized.codes[rows.start * stride..rows.end * stride].as_ptr();
            block.x_scales = quantized.scales[rows.start * groups..rows.end * groups].as_ptr();
            block.x_sums = quantized.sums[rows.start * groups..rows.end * groups].as_ptr();
            block.x_stride = stride;
        }
        block
    }

    /// The same panels for the tokens from `count` on. `streams` as in the field.
    ///
    /// # Safety
    /// The block must have more than `count` tokens.
    #[inline(always)]
    pub unsafe fn skip_tokens(&self, count: usize, streams: bool) -> Block {
        // SAFETY: within the tokens of the block; where there are no codes, their stride is 0.
        unsafe {
            Block {
                streams,
                x: self.x.add(count * self.cols),
                x_codes: self.x_codes.add(count * self.x_stride),
                x_scales: self.x_scales.add(count * self.x_groups()),
                x_sums: self.x_sums.add(count * self.x_groups()),
                ..*self
            }
        }
    }

    /// The group of weights that group `part` of the activations lies in.
    #[inline(always)]
    pub fn group_of(&self, part: usize) -> usize {
        // 1, 2 or 4 parts: a shift, and no division in an inner loop.
        part >> self.parts.trailing_zeros()
    }

    /// Groups of activations per token.
    #[inline(always)]
    pub fn x_groups(&self) -> usize {
        self.x_stride / ACTIVATION_GROUP
    }

    /// The first byte of panel `index`.
    ///
    /// # Safety
    /// `index` must be below `count`.
    #[inline(always)]
    pub unsafe fn panel(&self, index: usize) -> *const u8 {
        debug_assert!(index < self.count);
        // SAFETY: the panels lie one after the other, `count` of them.
        unsafe { self.panels.add(index * self.panel_bytes) }
    }
}
