//! How far a long measurement is.

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub doing: &'static str,
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Counts steps.
pub(crate) struct Steps<'a> {
    progress: Progress,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

impl<'a> Steps<'a> {
    pub(crate) fn new(steps: usize, tell: &'a mut (dyn FnMut(Progress) + Send)) -> Self {
        Steps { progress: Progress { doing: "reading", done: 0, steps }, tell }
    }

    pub(crate) fn step(&mut self, doing: &'static str) {
        self.progress.doing = doing;
        self.progress.done += 1;
        (self.tell)(self.progress);
    }
}
