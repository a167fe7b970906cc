//! The end of a run, as far as it is foreseen.
//! Input: signals and the clock.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Whether a run is to end. Whoever waits for something looks here whether to wait on: while the loop of the run waits,
/// it hears no signal and sees no clock. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    asked: Arc<AtomicBool>,
    due: Arc<OnceLock<Instant>>,
}

impl Ending {
    /// The run is to end at this time.
    pub fn is_due(&self, at: Instant) {
        // The first time holds: a run has one duration.
        let _ = self.due.set(at);
    }

    /// The run ends now. A signal handler may call this.
    pub fn begin(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end now.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.due.get().is_some_and(|due| Instant::now() >= *due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_asked_for_or_due() {
        let ending = Ending::default();
        let seen = ending.clone();
        assert!(!seen.is_here());
        ending.is_due(Instant::now() + Duration::from_hours(1));
        assert!(!seen.is_here());
        ending.begin();
        assert!(seen.is_here());
        let ended = Ending::default();
        ended.is_due(Instant::now());
        assert!(ended.is_here());
    }
}
