//! The float operations of each ISA, in one table.

use crate::engine::Activation;
use crate::generic::attention::{Queries, Span};
use crate::isa::Isa;
use crate::kv::{HeadChunk, KvLayer};

/// Float operations on one row (a token, a head or any run of floats).
///
/// # Safety
/// Each needs the ISA whose table it is from.
pub(crate) struct Ops {
    pub rms_norm: unsafe fn(x: &mut [f32], weight: &[f32], eps: f32),
    pub layer_norm: unsafe fn(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32),
    pub softmax: unsafe fn(x: &mut [f32]),
    pub activate: unsafe fn(activation: Activation, x: &mut [f32]),
    pub activate_gated: unsafe fn(activation: Activation, gate: &mut [f32], up: &[f32]),
    pub add: unsafe fn(x: &mut [f32], y: &[f32]),
    pub softcap: unsafe fn(x: &mut [f32], cap: f32),
    pub rope: unsafe fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    pub quantize_row: QuantizeRow,
    pub kv_store: unsafe fn(chunk: &mut HeadChunk, position: usize, key: &[f32], value: &[f32]),
    pub attend: unsafe fn(queries: &Queries, cache: &KvLayer, span: Span, partial: &mut [f32]),
    pub merge: unsafe fn(partials: &[f32], step: usize, rotated: usize, out: &mut [f32]),
}

/// Quantizes one row.
type QuantizeRow = unsafe fn(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]);

/// A table whose functions are compiled with `$features` over the lanes `$lanes`, those of attention
/// over the dot products `$words`, `$long` and `$short`, too. With `from`: another table's, but for these.
macro_rules! ops_table {
    ($lanes:ty, $words:ty, $long:ty, $short:ty $(, $features:literal)?) => {
        $crate::generic::ops_table!(@table $lanes, [$words, $long, $short], [$(#[target_feature(enable = $features)])?],
            rms_norm = norm::rms_norm(x: &mut [f32], weight: &[f32], eps: f32);
            layer_norm = norm::layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32);
            softmax = norm::softmax(x: &mut [f32]);
            activate = elementwise::activate(activation: $crate::engine::Activation, x: &mut [f32]);
            activate_gated = elementwise::activate_gated(
                activation: $crate::engine::Activation, gate: &mut [f32], up: &[f32]);
            add = elementwise::add(x: &mut [f32], y: &[f32]);
            softcap = elementwise::softcap(x: &mut [f32], cap: f32);
            rope = elementwise::rope(x: &mut [f32], cos: &[f32], sin: &[f32]);
            quantize_row = quantize::quantize_row(
                x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]);
            kv_store = attention::kv_store(
                chunk: &mut $crate::kv::HeadChunk, position: usize, key: &[f32], value: &[f32]);
            merge = attention::merge(
                partials: &[f32], step: usize, rotated: usize, out: &mut [f32]);
        );
    };
    (from $table:path, $words:ty, $long:ty, $short:ty, $features:literal) => {
        pub(crate) static OPS: $crate::generic::Ops = $crate::generic::Ops {
            attend: $crate::generic::ops_table!(
                @attend [$words, $long, $short], [#[target_feature(enable = $features)]]),
            ..$table
        };
    };
    (@table $lanes:ty, $dots:tt, $features:tt,
        $($name:ident = $module:ident :: $function:ident ($($arg:ident : $type:ty),*);)*) => {
        pub(crate) static OPS: $crate::generic::Ops = $crate::generic::Ops {
            $($name: {
                $crate::generic::ops_table!(@function $features, [$lanes], $module, $function,
                    ($($arg: $type),*));
                $function
            },)*
            attend: $crate::generic::ops_table!(@attend $dots, $features),
        };
    };
    (@attend [$words:ty, $long:ty, $short:ty], $features:tt) => {{
        $crate::generic::ops_table!(@function $features, [$words, $long, $short], attention, attend,
            (queries: &$crate::generic::attention::Queries, cache: &$crate::kv::KvLayer,
             span: $crate::generic::attention::Span, partial: &mut [f32]));
        attend
    }};
    (@function [$(#[$feature:meta])?], [$($over:ty),*], $module:ident, $function:ident,
        ($($arg:ident : $type:ty),*)) => {
        $(#[$feature])?
        unsafe fn $function($($arg: $type),*) {
            // SAFETY: the caller has the ISA; the features are enabled here.
            unsafe { $crate::generic::$module::$function::<$($over),*>($($arg),*) }
        }
    };
}
pub(crate) use ops_table;

/// The float operations of an ISA; the scalar ones for an ISA of another architecture.
pub(crate) fn ops(isa: Isa) -> &'static Ops {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &crate::x86_64::avx2::OPS,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => &crate::x86_64::avxvnni::OPS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => &crate::x86_64::avx512vnni::OPS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &crate::aarch64::neon::OPS,
        #[cfg(target_arch = "aarch64")]
        Isa::DotProd | Isa::I8mm => &crate::aarch64::dotprod::OPS,
        _ => &crate::scalar::OPS,
    }
}
