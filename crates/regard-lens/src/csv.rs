//! The heads of a report as a table: one line each, for a spreadsheet or a data frame.

use crate::Report;
use crate::report::{Ablation, Head};

const NAMES: &str = "layer,head,entropy,max_weight,sink,self,recent,distance,max_logit,lse,special,one_hot,uniform,peak_logit,\
    error_f32,error_bf16,error_f16,previous,first,local,duplicate,induction,retrieval,cluster,ablation_zero,ablation_mean,ablation_resample,\
    layer_ablation_zero,layer_ablation_mean,layer_ablation_resample";

impl Report {
    /// A line of names, and one of numbers for each head; empty where something was not measured. What is of a layer stands with each head
    /// of it.
    pub fn csv(&self) -> String {
        let mut text = NAMES.to_owned();
        for range in &self.run.ranges {
            let name = range.name.replace('"', "\"\"");
            text.push_str(&format!(",\"range {name}\",\"range {name} last\""));
        }
        text.push('\n');
        for head in &self.heads {
            let layer = self.layers.iter().find(|layer| layer.layer == head.layer).map(|layer| &layer.ablation);
            text.push_str(&line(head, layer));
        }
        text
    }
}

impl Report {
    /// How alike any two heads attend, 0 to 1: a line of names, `layer.head`, and one for each head.
    pub fn similarities_csv(&self) -> String {
        let names = self.heads.iter().map(|head| format!("{}.{}", head.layer, head.head));
        let line = |(name, row): (String, &Vec<f64>)| {
            let numbers: String = row.iter().map(|share| format!(",{share:.4}")).collect();
            format!("{name}{numbers}\n")
        };
        let first: String = names.clone().map(|name| format!(",{name}")).collect();
        std::iter::once(format!("head{first}\n")).chain(names.zip(&self.similarities).map(line)).collect()
    }
}

fn line(head: &Head, layer: Option<&Ablation>) -> String {
    let (m, s, n) = (&head.means, &head.scores, &head.numerics);
    let means = [m.entropy, m.max_weight, m.sink, m.own, m.recent, m.distance, m.max_logit, m.lse].map(Some);
    let error = n.error.unwrap_or_default();
    let numerics = [n.one_hot, n.uniform, n.peak_logit].map(Some);
    let means = [&means[..], &[m.special], &numerics, &[error.f32, error.bf16, error.f16]].concat();
    let scores = [s.previous, s.first, s.local, s.duplicate, s.induction, s.retrieval];
    let changes = |ablation: Option<&Ablation>| [ablation.map(|a| a.zero), ablation.map(|a| a.mean), ablation.map(|a| a.resample)];
    let ablation = [changes(head.ablation.as_ref()), changes(layer)].concat();
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    let numbers = |of: &[Option<f64>]| of.iter().map(|x| number(*x)).collect::<Vec<_>>().join(",");
    let cluster = head.cluster.map_or_else(String::new, |cluster| cluster.to_string());
    let ranges: String = head.ranges.iter().map(|range| format!(",{},{}", range.mass, range.last)).collect();
    format!("{},{},{},{},{cluster},{}{ranges}\n", head.layer, head.head, numbers(&means), numbers(&scores), numbers(&ablation))
}
