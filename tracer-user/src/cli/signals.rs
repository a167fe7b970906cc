//! The signals that tracer handles.
//! Input: the kernel; /proc/self/status for the signals that were ignored when tracer was started.

use std::{
    fs,
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::Signal;
use signal_hook::low_level;
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};

use crate::{kernel::clock::now, run::ending::Ending};

/// Signals that come within this time are one request, nanoseconds: timeout(1) signals a process and its group.
const ONE_REQUEST: u64 = 300_000_000;

/// The signals that end a run properly, and the signal for the COMMAND's end. They are caught before the greeting is
/// shown.
pub struct Signals {
    interrupt: Caught,
    terminate: Caught,
    /// None under nohup: tracer survives a hangup.
    hangup: Option<Caught>,
    child: Caught,
    /// Only caught: when a file reaches the limit of its size, the error of the write ends the recording.
    _file_size: Caught,
}

impl Signals {
    /// Catches the signals: from now on they do not end the process by themselves. The first one to end begins `ending`,
    /// whatever the loop waits for; a second one ends the process where it is. None: all of them are for a COMMAND.
    pub fn catch(ending: Option<&Ending>) -> io::Result<Self> {
        let hangup = if ignores_hangup()? {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        let ends = [
            Some(Signal::INT),
            Some(Signal::TERM),
            hangup.as_ref().map(|_| Signal::HUP),
        ];
        let first = Arc::new(AtomicU64::new(0));
        for (ending, signal) in ending
            .into_iter()
            .flat_map(|ending| ends.map(|signal| (ending, signal)))
        {
            let Some(signal) = signal.map(Signal::as_raw) else {
                continue;
            };
            let (ending, first) = (ending.clone(), Arc::clone(&first));
            let act = move || match first.compare_exchange(0, now().0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => ending.begin(),
                Err(first) if now().0.saturating_sub(first) > ONE_REQUEST => low_level::exit(128 + signal),
                Err(_) => {}
            };
            // SAFETY: the action stores to atomics, reads a clock and leaves by `_exit`, which a handler may do.
            unsafe { low_level::register(signal, act) }?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
            child: signal(SignalKind::child())?,
            _file_size: signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next signal that is not about a child; None: a child has changed its state.
    pub async fn next(&mut self) -> Option<Signal> {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Some(Signal::INT),
            _ = self.terminate.recv() => Some(Signal::TERM),
            _ = hangup => Some(Signal::HUP),
            _ = self.child.recv() => None,
        }
    }
}

/// The mask of ignored signals, hexadecimal, signal 1 in bit 0 (fs/proc/array.c, `task_sig`).
fn ignores_hangup() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask & 1 != 0))
}
