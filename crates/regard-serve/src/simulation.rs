//! A deterministic simulation: one seed draws the pools, the requests and what goes wrong, and every step is checked.
//!
//! ```sh
//! cargo test -p regard-serve simulation                       # all seeds
//! REGARD_SEED=42 cargo test -p regard-serve simulation        # one
//! REGARD_SEEDS=1000000 cargo test -p regard-serve simulation  # more
//! ```

mod check;
mod draw;
mod drive;
pub(crate) mod model;
mod reference;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use self::drive::Watch;
use crate::bug::{Bug, switches};

/// Seeds of a run.
const SEEDS: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{variable}={text:?}: {e}")))
}

#[test]
fn every_request_gets_its_own_tokens_whatever_happens() {
    if let Some(seed) = number("REGARD_SEED") {
        println!("{:#?}", draw::Scenario::draw(seed));
        drive::run(seed, Watch::All);
        return;
    }
    let seeds = number("REGARD_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = std::time::Instant::now();
    let mut seen = drive::Seen::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut seen = drive::Seen::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return seen;
                }
                match catch_unwind(|| drive::run(seed, Watch::All)) {
                    Ok(one) => seen.add(&one),
                    Err(_) => panic!("seed {seed} fails: run it alone with REGARD_SEED={seed}"),
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| seen.add(&worker.join().unwrap()));
    });
    let rate = seeds as f64 / began.elapsed().as_secs_f64();
    println!("{seeds} seeds, {rate:.0} per second: {seen:?}");
    if seeds >= SEEDS {
        seen.check();
    }
}

/// Whether some seed below `seeds` finds a bug: the first that does.
fn found(bug: Bug, watch: Watch, seeds: u64) -> Option<(u64, String)> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            hook(info);
        }
    }));
    QUIET.set(true);
    switches::BUG.set(Some(bug));
    let found = (0..seeds).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| drive::run(seed, watch))) {
        Ok(_) => None,
        Err(why) => Some((seed, text(&*why).lines().next().unwrap_or_default().to_owned())),
    });
    switches::BUG.set(None);
    QUIET.set(false);
    found
}

#[test]
fn the_same_events_give_the_same_outputs() {
    for seed in 0..500 {
        assert_eq!(drive::outputs(seed), drive::outputs(seed), "seed {seed}");
    }
}

fn text(why: &(dyn Any + Send)) -> &str {
    why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or_default()
}

#[test]
fn every_bug_is_found() {
    for bug in Bug::ALL {
        let (seed, why) = found(bug, Watch::All, SEEDS).unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
        println!("{bug:?} is found by seed {seed}: {why}");
    }
}

/// A page with wrong contents shows in what requests get, even if nobody looks at the books.
#[test]
fn wrong_pages_are_found_without_the_books() {
    for bug in [Bug::CopiesNoPage, Bug::TrustsHash, Bug::SlidesTooFar, Bug::SwapsPages, Bug::CachesEarly] {
        let (seed, why) = found(bug, Watch::Outputs, SEEDS).unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
        println!("{bug:?} is found by seed {seed}: {why}");
    }
}
