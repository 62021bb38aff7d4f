//! Ctrl-C: the first one asks the command to end in order, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the user has pressed Ctrl-C (or the process was asked to terminate).
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen. May be called once in a process.
    pub(crate) fn listen() -> Result<Self, ctrlc::Error> {
        let raised = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&raised);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130); // 128 + SIGINT, as shells report it
            }
        })?;
        Ok(Self(raised))
    }

    pub(crate) fn raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for whoever looks at it while it works.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
