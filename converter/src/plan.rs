//! Which kind each matrix gets, so that the file fits a size with the least loss; and which matrices
//! take their inputs twice as precisely.
//!
//! The loss of a matrix in a kind is estimated to second order: the error of rounding a sample of its
//! rows, measured by what GPTQ cannot make up for and by how much the outputs matter. Starting from
//! the smallest kinds, whatever buys the most for its bytes is bought until the size is used up.

use crate::Error;
use crate::calibrate::{STAGES, Sensitivity};
use crate::checkpoint::Checkpoint;
use crate::quantize::grid::Grid;
use kinglet::format::names::layer;
use kinglet_kernels::packing::{Kind, Layout};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of a matrix whose error is measured, spread over it evenly.
const SAMPLE: usize = 48;

/// The kind of each matrix, by its name.
pub type Kinds = BTreeMap<String, Kind>;

/// A kind that a matrix may have.
#[derive(Clone, Copy, Debug)]
struct Choice {
    kind: Kind,
    bytes: u64,
    /// Expected divergence that it adds, in nats.
    loss: f64,
}

/// Chooses a kind for each matrix. `file_bytes` says how large a file of such kinds is.
///
/// # Errors
/// A weight that cannot be read, or a size that even the smallest kinds exceed.
pub fn allocate(
    checkpoint: &Checkpoint,
    sensitivity: &Sensitivity,
    tokens: &[u32],
    flag: &'static str,
    budget: u64,
    file_bytes: &dyn Fn(&Kinds) -> Result<u64, Error>,
) -> Result<Kinds, Error> {
    let names = checkpoint.weights.iter();
    let names: Vec<&String> = names
        .filter(|(_, w)| w.shape().len() == 2)
        .map(|(name, _)| name)
        .collect();
    let choices: Vec<Vec<Choice>> = names
        .par_iter()
        .map(|name| Ok(efficient(choices(checkpoint, sensitivity, tokens, name)?)))
        .collect::<Result<_, Error>>()?;
    let kinds = |chosen: &[usize]| -> Kinds {
        let chosen = chosen
            .iter()
            .zip(&choices)
            .map(|(&c, choices)| choices[c].kind);
        names
            .iter()
            .map(|name| (*name).clone())
            .zip(chosen)
            .collect()
    };
    let mut chosen = vec![0; names.len()];
    let mut bytes = file_bytes(&kinds(&chosen))?;
    if bytes > budget {
        let reason = format!(
            "{:.2} MB is too small for this model: the smallest possible is {:.2} MB",
            budget as f64 / 1e6,
            bytes as f64 / 1e6
        );
        return Err(Error::Setting { flag, reason });
    }
    // Those whose next kind would not fit, whatever else there is.
    let mut is_full = vec![false; names.len()];
    loop {
        let upgrade = |index: usize| {
            let (now, next) = (
                choices[index][chosen[index]],
                choices[index].get(chosen[index] + 1)?,
            );
            let more = next.bytes - now.bytes;
            (!is_full[index] && bytes + more <= budget)
                .then(|| ((now.loss - next.loss) / more as f64, index, more))
        };
        let best = (0..names.len())
            .filter_map(upgrade)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, index, more)) = best else {
            break;
        };
        chosen[index] += 1;
        bytes += more;
        // Names of kinds differ in length, and the header with them, by less than two pages.
        if bytes + 8192 > budget && file_bytes(&kinds(&chosen))? > budget {
            chosen[index] -= 1;
            bytes -= more;
            is_full[index] = true;
        }
    }
    Ok(kinds(&chosen))
}

/// Every quantized kind of the matrix `name`, with its bytes and expected loss.
fn choices(
    checkpoint: &Checkpoint,
    sensitivity: &Sensitivity,
    tokens: &[u32],
    name: &str,
) -> Result<Vec<Choice>, Error> {
    let sample = Sample::read(checkpoint, sensitivity, tokens, name)?;
    let shape = checkpoint.weight(name)?.shape();
    let choice = |kind: Kind| {
        let layout = Layout::new(kind, shape[0], shape[1]).ok()?;
        Some(Choice {
            kind,
            bytes: layout.bytes() as u64,
            loss: sample.loss(kind),
        })
    };
    Ok(Kind::quantized().filter_map(choice).collect())
}

/// Whether the embedding is the head, too, in a file with matrices of these kinds.
pub fn is_tied(checkpoint: &Checkpoint, kinds: &Kinds) -> bool {
    checkpoint.config.tied_head && !kinds.contains_key("head")
}

/// The matrices that take their inputs as two INT8, by the names of `kinds`: those first that gain the
/// most for the work that it takes, until what the other inputs lose as one INT8 is no more than what
/// all weights lose in their kinds. Matrices of one input go together.
///
/// # Errors
/// A weight that cannot be read.
pub fn precise(
    checkpoint: &Checkpoint,
    sensitivity: &Sensitivity,
    tokens: &[u32],
    kinds: &Kinds,
) -> Result<BTreeSet<String>, Error> {
    let of_layer = |index: usize| {
        let names = move |parts: &&[&str]| -> Vec<String> {
            parts.iter().map(|part| layer(index, part)).collect()
        };
        STAGES.iter().map(names)
    };
    let layers = 0..checkpoint.config.layers.len();
    let mut stages: Vec<Vec<String>> = layers.flat_map(of_layer).collect();
    let head = match is_tied(checkpoint, kinds) {
        true => "embed",
        false => "head",
    };
    stages.push(vec![head.to_owned()]);
    let read = |mut names: Vec<String>| {
        names.retain(|name| kinds[name].is_quantized());
        let mut stage = Stage::default();
        for name in &names {
            let sample = Sample::read(checkpoint, sensitivity, tokens, name)?;
            stage.weights += sample.loss(kinds[name]);
            let name = if name == head { "head" } else { name };
            stage.inputs += sensitivity.input_loss(name);
            stage.work += checkpoint.weight(name)?.shape().iter().product::<usize>() as f64;
        }
        Ok(Stage { names, ..stage })
    };
    let stages: Vec<Stage> = stages
        .into_par_iter()
        .map(read)
        .collect::<Result<_, Error>>()?;
    Ok(worthwhile(stages))
}

/// Matrices with one input.
#[derive(Default)]
struct Stage {
    names: Vec<String>,
    /// What the input loses as one INT8, in nats.
    inputs: f64,
    /// What the matrices lose in their kinds.
    weights: f64,
    /// Multiplications for each token.
    work: f64,
}

/// What [`precise`] chooses.
fn worthwhile(mut stages: Vec<Stage>) -> BTreeSet<String> {
    stages.retain(|stage| !stage.names.is_empty());
    stages.sort_by(|a, b| (b.inputs / b.work).total_cmp(&(a.inputs / a.work)));
    let weights: f64 = stages.iter().map(|stage| stage.weights).sum();
    let mut rest: f64 = stages.iter().map(|stage| stage.inputs).sum();
    let mut chosen = BTreeSet::new();
    for stage in stages {
        if rest <= weights {
            break;
        }
        rest -= stage.inputs;
        chosen.extend(stage.names);
    }
    chosen
}

/// Some rows of a matrix, with what their errors cost.
struct Sample {
    cols: usize,
    /// `[row][cols]`
    weights: Vec<f32>,
    importance: Vec<f32>,
    /// What the squared error of all rows together stands for.
    factor: f64,
}

impl Sample {
    /// Rows of the matrix `name`.
    fn read(
        checkpoint: &Checkpoint,
        sensitivity: &Sensitivity,
        tokens: &[u32],
        name: &str,
    ) -> Result<Sample, Error> {
        let weight = checkpoint.weight(name)?;
        let (rows, cols) = (weight.shape()[0], weight.shape()[1]);
        // Rows of the vocabulary matter as often as their token comes.
        let vocabulary = name == "embed" || name == "head";
        let sampled: Vec<usize> = if vocabulary {
            let step = (tokens.len() / SAMPLE).max(1);
            tokens.iter().step_by(step).map(|&t| t as usize).collect()
        } else {
            let step = (rows / SAMPLE).max(1);
            (0..rows).step_by(step).collect()
        };
        let mut weights = vec![0.0; sampled.len() * cols];
        for (&row, out) in sampled.iter().zip(weights.chunks_exact_mut(cols)) {
            weight.read_rows(row..row + 1, out)?;
        }
        let importance = sensitivity.importance(name, checkpoint.config.tied_head);
        let share = if vocabulary { 1.0 } else { rows as f64 };
        let factor = 0.5 * share / sampled.len() as f64;
        Ok(Sample {
            cols,
            weights,
            importance,
            factor,
        })
    }

    /// Expected divergence, in nats, of the matrix in a kind.
    fn loss(&self, kind: Kind) -> f64 {
        let rows = self.weights.chunks_exact(self.cols);
        let error = rows.map(|row| row_error(kind, row, &self.importance));
        self.factor * error.sum::<f64>()
    }
}

/// The weighted squared error of one row.
fn row_error(kind: Kind, row: &[f32], importance: &[f32]) -> f64 {
    let group = kind.group().map_or(row.len(), |group| group.len());
    let grid = Grid::of(kind);
    let groups = row.chunks(group).zip(importance.chunks(group));
    let error = groups.map(|(weights, importance)| {
        let step = grid.search(weights, importance);
        let columns = weights.iter().zip(importance);
        let errors = columns.map(|(&w, &i)| {
            let difference = f64::from(grid.value(step, grid.code(step, w)) - w);
            f64::from(i) * difference * difference
        });
        errors.sum::<f64>()
    });
    error.sum()
}

/// Those choices that no mixture of others beats, smallest first: the lower convex hull.
fn efficient(mut choices: Vec<Choice>) -> Vec<Choice> {
    choices.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss)));
    let mut hull: Vec<Choice> = vec![];
    for choice in choices {
        if hull.last().is_some_and(|last| choice.loss >= last.loss) {
            continue;
        }
        let slope = |a: &Choice, b: &Choice| (a.loss - b.loss) / (b.bytes - a.bytes) as f64;
        while let [.., before, last] = hull[..] {
            if slope(&before, &last) > slope(&last, &choice) {
                break;
            }
            hull.pop();
        }
        hull.push(choice);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_choices_on_the_hull_remain() {
        let choice = |bytes, loss| Choice {
            kind: Kind::F16,
            bytes,
            loss,
        };
        let all = vec![
            choice(40, 1.0),
            choice(10, 16.0),
            choice(30, 9.0),
            choice(20, 8.0),
            choice(25, 7.9),
        ];
        let kept: Vec<u64> = efficient(all).iter().map(|c| c.bytes).collect();
        assert_eq!(kept, [10, 20, 40]);
    }

    #[test]
    fn inputs_are_taken_twice_until_the_rest_lose_no_more_than_the_weights() {
        let stages = |weights: f64| {
            let stage = |name: &str, inputs: f64, work: f64| Stage {
                names: vec![name.to_owned()],
                inputs,
                weights: weights / 3.0,
                work,
            };
            let all = [
                stage("dear", 4.0, 9.0),
                stage("cheap", 3.0, 1.0),
                stage("idle", 0.5, 2.0),
            ];
            worthwhile(all.into()).into_iter().collect::<Vec<_>>()
        };
        assert!(stages(7.5).is_empty());
        assert_eq!(stages(5.0), ["cheap"]);
        assert_eq!(stages(1.0), ["cheap", "dear"]);
        assert_eq!(stages(0.1), ["cheap", "dear", "idle"]);
    }
}
