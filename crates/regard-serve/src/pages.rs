//! The pages of all groups: how block tables are opened, grown, shared, slid and closed.

mod pool;
mod prefix;
mod swap;
mod table;

pub use self::table::Table;

pub(crate) use self::pool::Pool;
use self::prefix::PrefixId;
use self::swap::Slots;
use crate::bug::{self, Bug};
use crate::{Group, Keep, Runner, RunnerError};

/// What a text begins with, besides its tokens: pages are shared only where both are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root<'a> {
    pub(crate) salt: &'a [u8],
    pub(crate) source: &'a [u32],
}

/// The pools of all groups.
#[derive(Debug)]
pub(crate) struct Pages {
    groups: Vec<Group>,
    pools: Vec<Pool>,
    slots: Vec<Slots>,
    /// Where whole pages of all groups end together; 0 without a prefix cache.
    stride: usize,
}

impl Pages {
    pub(crate) fn new(groups: &[Group], prefix_cache: bool, secret: [u8; 16]) -> Self {
        let sizes = groups.iter().filter(|group| group.keep != Keep::Source).map(|group| group.page_size);
        Self {
            groups: groups.to_vec(),
            pools: groups.iter().map(|group| Pool::new(group.pages, secret)).collect(),
            slots: groups.iter().map(|group| Slots::new(group.swap_pages)).collect(),
            stride: if prefix_cache { sizes.reduce(least_common_multiple).unwrap_or(0) } else { 0 },
        }
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Block tables for a text, over the cached pages of its first tokens, and how many tokens these hold.
    pub(crate) fn open(&mut self, root: Root<'_>, tokens: &[u32]) -> (Vec<Table>, usize) {
        let mut tables: Vec<Table> = self.groups.iter().map(|_| Table::default()).collect();
        if self.stride == 0 {
            return (tables, 0);
        }
        let chains: Vec<Vec<PrefixId>> = (0..self.groups.len()).map(|g| self.chain(g, root, tokens)).collect();
        let whole = |g: usize| if self.groups[g].keep == Keep::Source { usize::MAX } else { chains[g].len() - 1 };
        let longest = (0..self.groups.len()).filter(|g| !chains[*g].is_empty());
        let longest = longest.map(|g| whole(g) * self.groups[g].page_size).min().unwrap_or(0);
        let hit = (0..=longest / self.stride).rev().map(|n| n * self.stride).find(|len| self.holds(&chains, *len)).unwrap_or(0);
        for (g, table) in tables.iter_mut().enumerate() {
            let (group, pool) = (&self.groups[g], &mut self.pools[g]);
            let Some(&first) = chains[g].first() else { continue };
            let whole = hit / group.page_size;
            let seen = group.first_page(hit);
            table.pages = (0..whole).map(|i| if i < seen { None } else { pool.find(chains[g][i + 1]) }).collect();
            table.held().for_each(|page| pool.share(page));
            table.prefix = Some(chains[g][whole]);
            table.whole = whole;
            pool.prefixes.retain(chains[g][whole]);
            pool.prefixes.release(first);
        }
        (tables, hit)
    }

    /// The known prefixes of a text in one group, from the one without tokens on, which is held. Empty where nothing can be cached.
    fn chain(&mut self, g: usize, root: Root<'_>, tokens: &[u32]) -> Vec<PrefixId> {
        if self.groups[g].keep == Keep::Source {
            return Vec::new();
        }
        let prefixes = &mut self.pools[g].prefixes;
        let mut chain: Vec<PrefixId> = prefixes.root(root.salt, root.source).into_iter().collect();
        for page in tokens.chunks_exact(self.groups[g].page_size) {
            let Some(next) = chain.last().and_then(|parent| prefixes.find(*parent, page)) else { break };
            chain.push(next);
        }
        chain
    }

    /// Whether every group has the pages that a query after the first `len` tokens sees.
    fn holds(&self, chains: &[Vec<PrefixId>], len: usize) -> bool {
        self.groups.iter().zip(&self.pools).zip(chains).all(|((group, pool), chain)| {
            let seen = group.first_page(len)..len / group.page_size;
            match chain.get(1..) {
                Some(pages) => pages[seen].iter().all(|prefix| pool.find(*prefix).is_some()),
                None => len == 0 || group.keep == Keep::Source,
            }
        })
    }

    /// Pages of a group that sequences of these lengths fill at most, when they share their first `shared` tokens and read at most
    /// `step` tokens in a step.
    pub(crate) fn demand(&self, g: usize, shared: usize, lens: &[usize], source: usize, step: usize) -> usize {
        let group = &self.groups[g];
        let common = shared / group.page_size;
        let all = common + lens.iter().map(|len| group.pages_of(*len) - common).sum::<usize>();
        match group.keep {
            Keep::All => all,
            Keep::Window(window) => all.min(lens.len() * (group.pages_of(window.saturating_add(step)) + 1)),
            Keep::Source => group.pages_of(source),
        }
    }

    /// Makes room for `tokens` more tokens after the first `computed`, and for the source; a shared last page is copied first. False
    /// when pages are wanting; what was taken by then stays with the tables.
    ///
    /// # Errors
    /// When the runner cannot copy.
    pub(crate) fn grow(
        &mut self,
        tables: &mut [Table],
        computed: usize,
        tokens: usize,
        source: usize,
        runner: &mut impl Runner,
    ) -> Result<bool, RunnerError> {
        for (g, table) in tables.iter_mut().enumerate() {
            let (group, pool) = (&self.groups[g], &mut self.pools[g]);
            let len = if group.keep == Keep::Source { source } else { computed + tokens };
            if group.keep != Keep::Source && !computed.is_multiple_of(group.page_size) {
                let last = &mut table.pages[computed / group.page_size];
                let Some(page) = *last else { return Ok(false) };
                if pool.references(page) > 1 && !bug::present(Bug::CopiesNoPage) {
                    let Some(own) = pool.take() else { return Ok(false) };
                    let copied = runner.copy_page(g, page, own);
                    pool.release(if copied.is_ok() { page } else { own });
                    copied?;
                    *last = Some(own);
                }
            }
            while table.pages.len() < group.pages_of(len) {
                let Some(page) = pool.take() else { return Ok(false) };
                table.pages.push(Some(page));
            }
        }
        Ok(true)
    }

    /// Gives back the pages that [`Pages::grow`] added after the first `computed` tokens.
    pub(crate) fn trim(&mut self, tables: &mut [Table], computed: usize) {
        for ((group, pool), table) in self.groups.iter().zip(&mut self.pools).zip(tables) {
            if group.keep != Keep::Source {
                let extra = table.pages.split_off(group.pages_of(computed).min(table.pages.len()));
                extra.into_iter().rev().flatten().for_each(|page| pool.release(page));
            }
        }
    }

    /// Whether the pages of these positions may be written.
    pub(crate) fn writable(&self, tables: &[Table], from: usize, to: usize) -> bool {
        self.groups.iter().zip(&self.pools).zip(tables).filter(|((group, _), _)| group.keep != Keep::Source).all(
            |((group, pool), table)| {
                let pages = from / group.page_size..group.pages_of(to);
                table.pages.get(pages).is_some_and(|pages| pages.iter().all(|page| page.is_some_and(|page| pool.writable(page))))
            },
        )
    }

    /// After the first `computed` of a sequence's tokens are in its pages: whole pages can be found by others, and those behind a
    /// window go.
    pub(crate) fn settle(&mut self, tables: &mut [Table], tokens: &[u32], computed: usize) {
        for (g, table) in tables.iter_mut().enumerate() {
            let (group, pool) = (&self.groups[g], &mut self.pools[g]);
            if group.keep == Keep::Source {
                continue;
            }
            let size = group.page_size;
            let end = computed + usize::from(bug::present(Bug::CachesEarly));
            while let Some(parent) = table.prefix.filter(|_| (table.whole + 1) * size <= end.min(tokens.len())) {
                let at = table.whole;
                table.whole += 1;
                table.prefix = pool.prefixes.extend(parent, &tokens[at * size..][..size]);
                pool.prefixes.release(parent);
                if let (Some(prefix), Some(Some(page))) = (table.prefix, table.pages.get(at)) {
                    pool.publish(*page, prefix);
                }
            }
            let seen = group.first_page(computed + size * usize::from(bug::present(Bug::SlidesTooFar)));
            for page in table.pages.iter_mut().take(seen).filter_map(Option::take) {
                pool.release(page);
            }
        }
    }

    /// Second tables over the same pages.
    pub(crate) fn fork(&mut self, tables: &[Table]) -> Vec<Table> {
        let fork = |(table, pool): (&Table, &mut Pool)| {
            table.held().for_each(|page| pool.share(page));
            table.prefix.iter().for_each(|prefix| pool.prefixes.retain(*prefix));
            Table { pages: table.pages.clone(), prefix: table.prefix, whole: table.whole }
        };
        tables.iter().zip(&mut self.pools).map(fork).collect()
    }

    /// Gives the pages of tables back, the last first: a cached page then goes before those that lead to it.
    pub(crate) fn close(&mut self, tables: Vec<Table>) {
        for (table, pool) in tables.into_iter().zip(&mut self.pools) {
            let kept = usize::from(bug::present(Bug::KeepsReference));
            table.held().rev().skip(kept).for_each(|page| pool.release(page));
            table.prefix.into_iter().for_each(|prefix| pool.prefixes.release(prefix));
        }
    }
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

#[cfg(test)]
impl Pages {
    /// Checks the books of every group against all tables that hold pages.
    pub(crate) fn check<'a>(&self, tables: impl Iterator<Item = &'a [Table]> + Clone) {
        for (g, pool) in self.pools.iter().enumerate() {
            pool.check(tables.clone().filter_map(|tables| tables.get(g)).flat_map(Table::held));
        }
    }
}
