//! Passes: from a checkpoint to one that computes the same and loses less when it is quantized.
//!
//! What a pass does to the input of a linear layer, a scale or a rotation, is undone by what stands
//! before it, and both are folded into the weights: the model runs as before, at no cost. Weights stay
//! lazy: a folded one computes its rows when they are read.

pub mod awq;
mod fold;
pub mod rotate;
mod rotation;
#[cfg(test)]
mod tests;
