//! Prefixes: the tokens before and in a page, found by a secret-keyed hash and verified by comparison.

use std::collections::HashMap;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::bug::{self, Bug};

/// Names a prefix; never used twice.
pub(crate) type PrefixId = u64;

/// A page of tokens after a prefix, or where prefixes begin.
#[derive(Debug)]
struct Prefix {
    key: u128,
    parent: Option<PrefixId>,
    salt: Box<[u8]>,
    tokens: Box<[u32]>,
    /// Longer prefixes, tables and pages that name it.
    holders: u32,
}

/// All prefixes that a page, a table or a longer prefix holds.
///
/// ```text
///   key = SipHash-2-4-128 under the secret, of the parent's key, the salt and the tokens
/// ```
/// A prefix is its parent and its own tokens, so comparing both compares all tokens from the first on. Two prefixes with one key do
/// not both enter: the later one is not cached.
#[derive(Debug)]
pub(crate) struct Prefixes {
    secret: [u8; 16],
    ids: HashMap<u128, PrefixId>,
    prefixes: HashMap<PrefixId, Prefix>,
    next: PrefixId,
}

impl Prefixes {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { secret, ids: HashMap::new(), prefixes: HashMap::new(), next: 0 }
    }

    /// The prefix without tokens of the texts with this salt that reply to this source. None when another has its key.
    pub(crate) fn root(&mut self, salt: &[u8], source: &[u32]) -> Option<PrefixId> {
        let salt = if bug::present(Bug::ForgetsSalt) { &[] } else { salt };
        self.hold(None, salt, source)
    }

    /// The prefix that `tokens` after `parent` make; the caller holds it. None when another has its key.
    pub(crate) fn extend(&mut self, parent: PrefixId, tokens: &[u32]) -> Option<PrefixId> {
        self.hold(Some(parent), &[], tokens)
    }

    /// As [`Prefixes::extend`], for one that exists, without holding it.
    pub(crate) fn find(&self, parent: PrefixId, tokens: &[u32]) -> Option<PrefixId> {
        self.get(self.key(Some(parent), &[], tokens), Some(parent), &[], tokens).flatten()
    }

    /// One holder less; a prefix without holders goes, and lets go of its parent.
    pub(crate) fn release(&mut self, id: PrefixId) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let Some(prefix) = self.prefixes.get_mut(&id) else { return };
            prefix.holders -= 1;
            if prefix.holders == 0 {
                next = prefix.parent;
                self.ids.remove(&prefix.key);
                self.prefixes.remove(&id);
            }
        }
    }

    /// One holder more.
    pub(crate) fn retain(&mut self, id: PrefixId) {
        if let Some(prefix) = self.prefixes.get_mut(&id) {
            prefix.holders += 1;
        }
    }

    fn hold(&mut self, parent: Option<PrefixId>, salt: &[u8], tokens: &[u32]) -> Option<PrefixId> {
        let key = self.key(parent, salt, tokens);
        let id = match self.get(key, parent, salt, tokens) {
            Some(same) => same?,
            None => {
                let id = self.next;
                self.next += 1;
                self.ids.insert(key, id);
                self.prefixes.insert(id, Prefix { key, parent, salt: salt.into(), tokens: tokens.into(), holders: 0 });
                parent.into_iter().for_each(|parent| self.retain(parent));
                id
            }
        };
        self.retain(id);
        Some(id)
    }

    /// The prefix with this key; `Some(None)` when it has other tokens.
    fn get(&self, key: u128, parent: Option<PrefixId>, salt: &[u8], tokens: &[u32]) -> Option<Option<PrefixId>> {
        let id = *self.ids.get(&key)?;
        let prefix = &self.prefixes[&id];
        let same = prefix.parent == parent && *prefix.salt == *salt && *prefix.tokens == *tokens;
        Some((same || bug::present(Bug::TrustsHash)).then_some(id))
    }

    fn key(&self, parent: Option<PrefixId>, salt: &[u8], tokens: &[u32]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write_u128(parent.map_or(0, |parent| self.prefixes[&parent].key));
        hasher.write_u64(salt.len() as u64);
        hasher.write(salt);
        tokens.iter().for_each(|token| hasher.write_u32(*token));
        hasher.finish128().as_u128() & bug::hash_mask()
    }

    /// Tokens of a prefix, of its own page only.
    #[cfg(test)]
    pub(crate) fn tokens(&self, id: PrefixId) -> &[u32] {
        &self.prefixes[&id].tokens
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.prefixes.len()
    }
}
