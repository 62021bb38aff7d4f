//! The heads of a report as a table: one line each, for a spreadsheet or a data frame.

use crate::Report;
use crate::report::Head;

const NAMES: &str = "layer,head,entropy,max_weight,sink,self,recent,distance,max_logit,lse,one_hot,peak_logit,\
    previous,first,local,duplicate,induction,retrieval,cluster,ablation_zero,ablation_mean";

impl Report {
    /// A line of names, and one of numbers for each head; empty where something was not measured.
    pub fn csv(&self) -> String {
        let mut text = NAMES.to_owned();
        text.push('\n');
        self.heads.iter().for_each(|head| text.push_str(&line(head)));
        text
    }
}

fn line(head: &Head) -> String {
    let (m, s) = (&head.means, &head.scores);
    let means =
        [m.entropy, m.max_weight, m.sink, m.own, m.recent, m.distance, m.max_logit, m.lse, head.one_hot, head.peak_logit].map(Some);
    let scores = [s.previous, s.first, s.local, s.duplicate, s.induction, s.retrieval];
    let ablation = [head.ablation.as_ref().map(|a| a.zero), head.ablation.as_ref().map(|a| a.mean)];
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    let numbers = |of: &[Option<f64>]| of.iter().map(|x| number(*x)).collect::<Vec<_>>().join(",");
    let cluster = head.cluster.map_or_else(String::new, |cluster| cluster.to_string());
    format!("{},{},{},{},{cluster},{}\n", head.layer, head.head, numbers(&means), numbers(&scores), numbers(&ablation))
}
