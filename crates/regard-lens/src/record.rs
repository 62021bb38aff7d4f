//! A report of attention that was computed elsewhere, by a model in Python for one: of one text, from facts of all rows and pooled weights.

use regard::{Facts, Tensor};

use crate::clusters::{ALIKE, clusters};
use crate::levels::{Level, alike, block, labels, top};
use crate::means::{Sums, profiles};
use crate::report::{Bins, Head, HeadScores, ModelFacts, Report, Run, TextFacts, short};
use crate::{Error, Result};

/// What the heads of one layer did with a text of `n` tokens.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Facts of every row, `[1, heads, n, …]`; their first range is the first token.
    pub facts: Facts,
    /// The log-sum-exp of every row, `[heads, n]`.
    pub lse: Vec<f32>,
    /// The weights pooled in cells of [`cell`]`(n)` by as many tokens, `[heads, edge, edge]`.
    pub cells: Vec<f32>,
}

/// Tokens on the edge of a cell of the finest map of a text of `n` tokens: at most 256 cells.
pub fn cell(n: usize) -> usize {
    block(n)
}

/// A report of one text that a model of as many layers read. What was not measured is null: scores on sequences made for them, ablations.
///
/// `run.texts`, `run.tokens` and `run.labels` are filled in, and so are `model.layers` and `model.heads`.
///
/// # Errors
/// When there is no layer, the text has fewer than two tokens, or a layer has not as many numbers as it needs.
pub fn report(model: ModelFacts, run: Run, text: TextFacts, layers: &[Layer]) -> Result<Report> {
    let n = text.tokens.len();
    let first = layers.first().ok_or(Error::NoText)?;
    if n < 2 {
        return Err(Error::Short { name: text.name, tokens: n });
    }
    let count = first.facts.entropy.shape()[1];
    let mut heads = Vec::with_capacity(layers.len() * count);
    let mut pyramids = Vec::with_capacity(layers.len() * count);
    for (i, layer) in layers.iter().enumerate() {
        layer.check(count, n, run.top)?;
        for head in 0..count {
            let levels = layer.levels(head, n);
            heads.push(layer.head((i, head), n, run.recent_tokens, &levels));
            pyramids.push(levels);
        }
    }
    let similarities = alike(&pyramids.iter().map(Vec::as_slice).collect::<Vec<_>>());
    heads.iter_mut().zip(clusters(&similarities, ALIKE)).for_each(|(head, kind)| head.cluster = Some(kind));
    let bins = Bins { count: n.div_ceil(cell(n)), width: cell(n) };
    Ok(Report {
        model: ModelFacts { layers: layers.len(), heads: count, ..model },
        run: Run { texts: 1, tokens: n, labels: labels(n), ..run },
        texts: vec![text],
        heads,
        similarities,
        bins,
        position_loss: vec![None; bins.count],
        ..Report::empty()
    })
}

impl Layer {
    fn check(&self, heads: usize, n: usize, top: usize) -> Result<()> {
        let (facts, edge) = (&self.facts, n.div_ceil(cell(n)));
        let size = |tensor: &Tensor<f32>| tensor.data().len();
        let classes = facts.distances.shape()[3];
        let numbers = [
            ("entropy", size(&facts.entropy), 1),
            ("largest logit", size(&facts.max_logit), 1),
            ("distance", size(&facts.distance), 1),
            ("mass of the first keys", size(&facts.first), 1),
            ("mass of the recent keys", size(&facts.recent), 1),
            ("mass of ranges", size(&facts.ranges), facts.ranges.shape()[3].max(1)),
            ("mass at distances", size(&facts.distances), classes.max(2)), // its own and the token before
            ("largest weights", size(&facts.top_weights), top.max(1)),
            ("keys of the largest weights", facts.top_keys.len(), top.max(1)),
            ("log-sum-exp", self.lse.len(), 1),
        ];
        let rows = numbers.map(|(what, given, each)| (what, given, heads * n * each));
        for (what, given, needed) in rows.into_iter().chain([("pooled weights", self.cells.len(), heads * edge * edge)]) {
            if given != needed {
                let why = "as many as the heads, the tokens and the options say";
                return Err(regard::Error::Size { what, dim: "numbers", given, needed, why }.into());
            }
        }
        Ok(())
    }

    fn levels(&self, head: usize, n: usize) -> Vec<Level> {
        let cells = n.div_ceil(cell(n)).pow(2);
        Level::new(n, cell(n), self.cells[head * cells..][..cells].to_vec()).pyramid()
    }

    fn head(&self, (layer, head): (usize, usize), n: usize, recent: usize, levels: &[Level]) -> Head {
        let mut sums = Sums::default();
        sums.add(&self.facts, &self.lse, recent, (head, n));
        Head {
            layer,
            head,
            means: sums.means(),
            numerics: sums.numerics(),
            scores: sums.scores(HeadScores::default()),
            distances: sums.distances(),
            by_position: profiles(&self.facts, (head, n), cell(n)),
            received: levels[0].received().map(|mass| short(f64::from(mass))).collect(),
            maps: levels.iter().map(Level::map).collect(),
            top: top(&self.facts, (head, n)),
            ..Head::default()
        }
    }
}
