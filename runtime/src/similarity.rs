//! Quality of an encoder: whether it finds texts alike that people find alike.

use crate::encoder::{Embedding, cosine};

/// How alike people find each pair of some documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgements {
    documents: usize,
    /// Of the pairs (0, 1), (0, 2) … (1, 2) …
    pairs: Vec<f64>,
}

impl Judgements {
    /// Reads a matrix of numbers, a line for each document; what is below the diagonal is ignored.
    ///
    /// # Errors
    /// A sentence that names the line, what was expected and what was found.
    pub fn parse(text: &str) -> Result<Judgements, String> {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        if lines.len() < 3 {
            return Err(format!(
                "{} lines: expected one for each document, 3 or more",
                lines.len()
            ));
        }
        let mut pairs = vec![];
        for (row, line) in lines.iter().enumerate() {
            let values: Vec<&str> = line.split_whitespace().collect();
            if values.len() != lines.len() {
                return Err(format!(
                    "line {}: {} numbers, expected {}, one for each document",
                    row + 1,
                    values.len(),
                    lines.len()
                ));
            }
            for value in &values[row + 1..] {
                let number = value.parse::<f64>().ok().filter(|x| x.is_finite());
                let number = number
                    .ok_or_else(|| format!("line {}: {value:?}: expected a number", row + 1))?;
                pairs.push(number);
            }
        }
        Ok(Judgements {
            documents: lines.len(),
            pairs,
        })
    }

    /// Documents that were judged.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// Spearman's rank correlation of the judgements with the cosines of the documents' embeddings,
    /// -1 to 1; not a number if an embedding is none.
    ///
    /// # Panics
    /// If there is not one embedding for each document.
    pub fn spearman(&self, embeddings: &[Embedding]) -> f64 {
        assert_eq!(embeddings.len(), self.documents, "embeddings of documents");
        let mut cosines = Vec::with_capacity(self.pairs.len());
        for (index, a) in embeddings.iter().enumerate() {
            let after = &embeddings[index + 1..];
            cosines.extend(after.iter().map(|b| cosine(&a.values, &b.values)));
        }
        if cosines.iter().any(|cosine| cosine.is_nan()) {
            return f64::NAN;
        }
        correlation(&ranks(&cosines), &ranks(&self.pairs))
    }
}

/// The rank of each value; equal ones share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = |&&index: &&usize| values[index] == values[order[from]];
        let count = order[from..].iter().take_while(same).count();
        let rank = from as f64 + (count - 1) as f64 / 2.0;
        for &index in &order[from..from + count] {
            ranks[index] = rank;
        }
        from += count;
    }
    ranks
}

/// Pearson's correlation; 0 where one side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    if of_a * of_b == 0.0 {
        return 0.0;
    }
    both / (of_a * of_b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(values: &[[f32; 2]]) -> Vec<Embedding> {
        let embedding = |values: &[f32; 2]| Embedding {
            tokens: 1,
            values: values.to_vec(),
        };
        values.iter().map(embedding).collect()
    }

    #[test]
    fn ranks_share_ties() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
    }

    #[test]
    fn correlation_is_one_where_the_orders_agree() {
        let judged = Judgements::parse("1 0.9 0.1\n0 1 0.2\n0 0 1\n").unwrap();
        let vectors = [[1.0, 0.0], [0.9, 0.3], [0.0, 1.0]];
        assert!((judged.spearman(&embeddings(&vectors)) - 1.0).abs() < 1e-12);
        let opposite = Judgements::parse("1 0.1 0.9\n0 1 0.2\n0 0 1\n").unwrap();
        assert!((opposite.spearman(&embeddings(&vectors)) + 1.0).abs() < 1e-12);
        let same = [[1.0, 0.0]; 3];
        assert_eq!(judged.spearman(&embeddings(&same)), 0.0);
        for bad in [f32::INFINITY, f32::NAN] {
            let vectors = [[bad, 0.0], [0.9, 0.3], [0.0, 1.0]];
            assert!(judged.spearman(&embeddings(&vectors)).is_nan(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let reason = |text: &str| Judgements::parse(text).unwrap_err();
        assert!(reason("1 2\n3 4\n").contains("2 lines"));
        assert!(reason("1 2 3\n1 2\n1 2 3\n").contains("line 2: 2 numbers"));
        assert!(reason("1 x 3\n1 2 3\n1 2 3\n").contains("\"x\""));
    }
}
