//! Heads that attend alike.
//!
//! The similarity of two heads is `1 − JSD / ln 2`, where JSD is the Jensen–Shannon divergence of their rows, averaged over the rows of a map of
//! the first text: 1 where they attend in the same way, 0 where they share no key. Source: Clark et al. 2019, "What Does BERT Look At?",
//! §6. Maps are pooled to at most 32 rows, so heads that differ within a block, as a previous-token head and one that reads itself do in a
//! long text, count as alike. Heads are joined by complete linkage: any two of a cluster are at least [`ALIKE`].

/// The least similarity of two heads of one cluster.
pub const ALIKE: f64 = 0.9;

/// `−Σ x ln x`
fn entropy(row: impl Iterator<Item = f64>) -> f64 {
    row.filter(|x| *x > 0.0).map(|x| -x * x.ln()).sum()
}

/// Rows that sum to 1, or to 0; and the entropy of each.
struct Rows {
    rows: Vec<Vec<f64>>,
    entropies: Vec<f64>,
}

impl Rows {
    fn of(map: &[f32], edge: usize) -> Self {
        let normal = |row: &[f32]| {
            let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
            row.iter().map(|x| f64::from(*x) / sum.max(f64::MIN_POSITIVE)).collect::<Vec<_>>()
        };
        let rows: Vec<Vec<f64>> = map.chunks(edge.max(1)).map(normal).collect();
        let entropies = rows.iter().map(|row| entropy(row.iter().copied())).collect();
        Rows { rows, entropies }
    }

    /// `1 − mean(H((p + q) / 2) − (H(p) + H(q)) / 2) / ln 2`
    fn similarity(&self, other: &Rows) -> f64 {
        let rows = self.rows.iter().zip(&other.rows).zip(self.entropies.iter().zip(&other.entropies));
        let divergence = rows.map(|((p, q), (h_p, h_q))| entropy(p.iter().zip(q).map(|(p, q)| (p + q) / 2.0)) - (h_p + h_q) / 2.0);
        1.0 - divergence.sum::<f64>() / (self.rows.len().max(1) as f64 * std::f64::consts::LN_2)
    }
}

/// The similarity of any two of some square maps of `edge` rows, `[maps, maps]`.
pub fn similarities(maps: &[&[f32]], edge: usize) -> Vec<Vec<f64>> {
    let maps: Vec<Rows> = maps.iter().map(|map| Rows::of(map, edge)).collect();
    maps.iter().map(|a| maps.iter().map(|b| a.similarity(b)).collect()).collect()
}

/// The number of the cluster of each, by complete linkage: numbers count from 0, in order of each cluster's first member.
pub fn clusters(similarities: &[Vec<f64>], least: f64) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = (0..similarities.len()).map(|i| vec![i]).collect();
    // The linkage of any two groups: the least similarity of their members.
    let mut links: Vec<Vec<f64>> = similarities.to_vec();
    loop {
        let pairs = (0..groups.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let best = pairs.filter(|(a, b)| !groups[*a].is_empty() && !groups[*b].is_empty());
        let Some((a, b)) =
            best.max_by(|(a, b), (c, d)| links[*a][*b].total_cmp(&links[*c][*d])).filter(|(a, b)| links[*a][*b] >= least)
        else {
            break;
        };
        let moved = std::mem::take(&mut groups[b]);
        groups[a].extend(moved);
        let joined: Vec<f64> = links[a].iter().zip(&links[b]).map(|(a, b)| a.min(*b)).collect();
        links.iter_mut().zip(&joined).for_each(|(row, link)| row[a] = *link);
        links[a] = joined;
    }
    groups.retain(|group| !group.is_empty());
    groups.sort_by_key(|group| group.iter().min().copied());
    let mut of = vec![0; similarities.len()];
    groups.iter().enumerate().for_each(|(number, group)| group.iter().for_each(|i| of[*i] = number));
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_maps_are_alike_and_disjoint_ones_are_not() {
        let (a, b, c) = ([1.0, 0.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5]);
        let all = similarities(&[&a, &b, &c], 2);
        assert!((all[0][1] - 1.0).abs() < 1e-12 && (all[0][2] - 0.5).abs() < 1e-12, "{all:?}");
        assert_eq!(clusters(&all, 0.9), [0, 0, 1]);
    }

    /// 0–1 and 1–2 are alike and 0–2 are not: single linkage would join all three.
    #[test]
    fn any_two_of_a_cluster_are_alike() {
        let all = vec![vec![1.0, 0.95, 0.5, 0.1], vec![0.95, 1.0, 0.93, 0.1], vec![0.5, 0.93, 1.0, 0.1], vec![0.1, 0.1, 0.1, 1.0]];
        assert_eq!(clusters(&all, 0.9), [0, 0, 1, 2]);
    }
}
