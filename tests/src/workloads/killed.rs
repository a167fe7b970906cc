//! A child that is killed in the middle of a call that moves its pages: the second half moves after it has ended.
//! Input: on stdin `move`, answered when the first half has moved, then `end`, answered by all moves.

use std::ffi::CStr;
use std::fs::File;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid};
use rustix::thread::set_name;

use super::pid_namespace::fork_as;
use super::protocol::{Workload, next_order, say};
use super::sharer::Sharer;
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::userfaultfd::Withheld;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "killed",
    what: "killed [heir]: `move` begins to move a child's pages from node 0 to 1, `end` kills it, moves the rest and reports; \
           heir: another process has its number by then",
    run,
};

/// The name of the process that gets the child's number.
const HEIR: &CStr = c"heir";

/// An address at which no process has a page: when the call reaches it, the pages that it has collected so far move
/// (mm/migrate.c, `do_pages_move`, 6.1 to 7.3).
const NOWHERE: u64 = 0;

fn run(args: &[String]) -> Result<()> {
    let heir = match args {
        [] => false,
        [word] if word == "heir" => true,
        _ => bail!("usage: killed [heir]"),
    };
    numa::run_on(0)?;
    // Each half has as many pages as fit into one page of the call's list, except the last word.
    let (page, half) = (rustix::param::page_size(), Withheld::per_page() - 1);
    let mut memory = Memory::base_pages(2 * half * page)?;
    memory.fill();
    let range = memory.addresses();
    let child = Sharer::fork(range.clone(), || Ok(()))?;
    // From now on they belong to the child alone.
    drop(memory);
    let pid = Pid::from_raw(child.pid.cast_signed()).context("a pid")?;
    // The task that moves a process's pages holds its address space. The open pagemap file still shows it meanwhile.
    let pagemap = format!("/proc/{}/pagemap", child.pid);
    let pagemap = File::open(&pagemap).with_context(|| format!("open {pagemap}"))?;
    let addresses: Vec<u64> = range.clone().step_by(page).collect();
    let (first, second) = addresses.split_at(half);

    // After an error below, the call still waits for the list until this process ends, so the list is leaked.
    let list: &'static Withheld = Box::leak(Box::new(Withheld::new(3)?));
    list.give(0, &[first, &[NOWHERE]].concat())?;
    say("ready")?;
    expect("move")?;
    let before = Snapshot::of(&pagemap, range.clone())?;
    let (number, words) = (child.pid, list.words(2 * Withheld::per_page() + 1));
    let call = thread::spawn(move || numa::move_listed(number, words, 1, false));
    wait_for(list, 1)?;
    say("half")?;
    expect("end")?;
    kill_process(pid, Signal::KILL).context("kill the child")?;
    // Its number stays in use until it is waited for.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).context("wait for its end")?;
    if heir {
        waitpid(Some(pid), WaitOptions::empty()).context("bury the child")?;
        fork_heir(pid)?;
    }
    list.give(1, &[second, &[NOWHERE]].concat())?;
    wait_for(list, 2)?;
    let moves = Moves::between(&before, &Snapshot::of(&pagemap, range.clone())?)?;
    list.give(2, &[NOWHERE])?;
    let Ok(called) = call.join() else {
        bail!("the thread that moves pages panicked")
    };
    called?;
    say(&Report::new(range, moves).to_line()?)?;
    expect("exit")?;
    if heir {
        kill_process(pid, Signal::KILL).context("kill the heir")?;
    }
    waitpid(Some(pid), WaitOptions::empty()).context("bury the child")?;
    Ok(())
}

/// Forks another process with this number, which stays alive.
fn fork_heir(number: Pid) -> Result<()> {
    if fork_as(number.as_raw_pid()).context("fork an heir")? == 0 {
        // Another thread may hold any lock, so only system calls are safe from here on.
        let _ = set_name(HEIR);
        loop {
            // SAFETY: the call returns only after a signal.
            unsafe { libc::pause() };
        }
    }
    Ok(())
}

fn expect(order: &str) -> Result<()> {
    let next = next_order()?;
    ensure!(
        next.as_deref().unwrap_or("exit") == order,
        "{next:?} instead of {order}"
    );
    Ok(())
}

/// Waits until the call needs this page of its list: then the pages before it in the list are done.
fn wait_for(list: &Withheld, page: usize) -> Result<()> {
    let wanted = list.wanted()?;
    ensure!(wanted == page, "page {wanted} of the list is wanted, not {page}");
    Ok(())
}
