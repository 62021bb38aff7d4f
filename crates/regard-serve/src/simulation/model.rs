//! The hash model: a key/value entry is a hash of the tokens that its position sees, and lies in a page. A wrong page gives another
//! hash, and so other logits for every token after it.

use crate::{Detokenizer, Group, Keep, Runner, RunnerError, Table, Work};

/// What a page holds for one position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: u64,
    pub(crate) token: u32,
}

/// The mathematics, without pages.
///
/// ```text
///   context(p) = fold over groups g and the positions before p that g sees:  mix(context, entry_g)
///   entry_g(p) = mix(context(p), token(p), g)
///   logits(p)  = hashes of (context(p), entries of p, token id)
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) salt: u64,
    pub(crate) vocab_size: usize,
}

pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rule {
    pub(crate) fn entry(&self, context: u64, token: u32, group: usize) -> u64 {
        mix(mix(context, u64::from(token)), group as u64)
    }

    /// A source is read as a whole: each entry depends on all of it.
    pub(crate) fn source_entry(&self, source: &[u32], position: usize) -> u64 {
        source.iter().fold(mix(self.salt, position as u64), |h, token| mix(h, u64::from(*token)))
    }

    pub(crate) fn logits(&self, context: u64) -> impl Iterator<Item = f32> {
        (0..self.vocab_size as u64).map(move |token| (mix(context, token) >> 40) as f32 / (1 << 22) as f32)
    }
}

/// The rule over pages, and calls that fail.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rule: Rule,
    pub(crate) context: usize,
    groups: Vec<Group>,
    pub(crate) pages: Vec<Vec<Vec<Entry>>>,
    slots: Vec<Vec<Vec<Entry>>>,
    pub(crate) faults: Faults,
    /// Tokens of the last batch.
    pub(crate) read: usize,
}

/// Calls until one fails.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) run: Option<u32>,
    pub(crate) copy: Option<u32>,
    pub(crate) swap_out: Option<u32>,
    pub(crate) swap_in: Option<u32>,
    pub(crate) nan: Option<u32>,
}

fn fails(fault: &mut Option<u32>) -> bool {
    let now = *fault == Some(0);
    *fault = fault.and_then(|calls| calls.checked_sub(1));
    now
}

impl Model {
    pub(crate) fn new(rule: Rule, context: usize, groups: &[Group], faults: Faults) -> Self {
        let room = |n: u32, group: &Group| vec![vec![Entry::default(); group.page_size]; n as usize];
        Self {
            rule,
            context,
            groups: groups.to_vec(),
            pages: groups.iter().map(|group| room(group.pages, group)).collect(),
            slots: groups.iter().map(|group| room(group.swap_pages, group)).collect(),
            faults,
            read: 0,
        }
    }

    fn at(&mut self, g: usize, tables: &[Table], position: usize) -> &mut Entry {
        let place = tables[g].place(position, self.groups[g].page_size);
        let (page, row) = place.unwrap_or_else(|| panic!("group {g} has no page for position {position}"));
        &mut self.pages[g][page as usize][row]
    }

    fn encode(&mut self, work: &Work<'_>) {
        for g in 0..self.groups.len() {
            for position in 0..work.source.len() * usize::from(self.groups[g].keep == Keep::Source) {
                let entry = Entry { hash: self.rule.source_entry(work.source, position), token: work.source[position] };
                *self.at(g, work.tables, position) = entry;
            }
        }
    }

    /// Reads one token: the hash of all that its position sees, itself among it.
    fn read(&mut self, work: &Work<'_>, position: usize, token: u32) -> u64 {
        let mut context = self.rule.salt;
        for g in 0..self.groups.len() {
            let seen = match self.groups[g].keep {
                Keep::All => 0..position,
                Keep::Window(window) => (position + 1).saturating_sub(window)..position,
                Keep::Source => 0..work.source.len(),
            };
            context = seen.fold(context, |context, at| mix(context, self.at(g, work.tables, at).hash));
        }
        let mut after = context;
        for g in (0..self.groups.len()).filter(|g| self.groups[*g].keep != Keep::Source).collect::<Vec<_>>() {
            let hash = self.rule.entry(context, token, g);
            *self.at(g, work.tables, position) = Entry { hash, token };
            after = mix(after, hash);
        }
        after
    }
}

impl Runner for Model {
    fn groups(&self) -> &[Group] {
        &self.groups
    }

    fn vocab_size(&self) -> usize {
        self.rule.vocab_size
    }

    fn context(&self) -> usize {
        self.context
    }

    fn run(&mut self, batch: &[Work<'_>]) -> Result<Vec<f32>, RunnerError> {
        self.read = batch.iter().map(|work| work.tokens.len() + if work.encode { work.source.len() } else { 0 }).sum();
        if fails(&mut self.faults.run) {
            return Err("the model has failed".into());
        }
        batch.iter().filter(|work| work.encode).for_each(|work| self.encode(work));
        let mut logits = Vec::new();
        for work in batch {
            for (i, token) in work.tokens.iter().enumerate() {
                let context = self.read(work, work.first + i, *token);
                if i + work.logits >= work.tokens.len() {
                    logits.extend(self.rule.logits(context));
                }
            }
        }
        if fails(&mut self.faults.nan) {
            logits.iter_mut().for_each(|x| *x = f32::NAN);
        }
        Ok(logits)
    }

    fn copy_page(&mut self, group: usize, from: u32, to: u32) -> Result<(), RunnerError> {
        if fails(&mut self.faults.copy) {
            return Err("a page could not be copied".into());
        }
        self.pages[group][to as usize] = self.pages[group][from as usize].clone();
        Ok(())
    }

    fn swap_out(&mut self, group: usize, page: u32, slot: u32) -> Result<(), RunnerError> {
        if fails(&mut self.faults.swap_out) {
            return Err("the swap space could not be written".into());
        }
        self.slots[group][slot as usize] = self.pages[group][page as usize].clone();
        Ok(())
    }

    fn swap_in(&mut self, group: usize, slot: u32, page: u32) -> Result<(), RunnerError> {
        if fails(&mut self.faults.swap_in) {
            return Err("the swap space could not be read".into());
        }
        let slot = (slot as usize).min(self.slots[group].len() - 1);
        self.pages[group][page as usize] = self.slots[group][slot].clone();
        Ok(())
    }
}

/// The bytes of a token: the first two are halves of one character.
pub(crate) fn byte(token: u32) -> u8 {
    match token {
        0 => 0xC3,
        1 => 0xA9,
        _ => b'a' + (token - 2) as u8,
    }
}

impl Detokenizer for Model {
    /// Bytes that are no character yet.
    type Text = Vec<u8>;

    fn text(&self, _: &[u32]) -> Vec<u8> {
        Vec::new()
    }

    fn push(&self, text: &mut Vec<u8>, token: u32) -> Result<String, RunnerError> {
        text.push(byte(token));
        let whole = text.len() - usize::from(text.last() == Some(&0xC3));
        Ok(String::from_utf8_lossy(&text.drain(..whole).collect::<Vec<u8>>()).into_owned())
    }

    fn finish(&self, text: &mut Vec<u8>) -> Result<String, RunnerError> {
        Ok(String::from_utf8_lossy(&std::mem::take(text)).into_owned())
    }
}
