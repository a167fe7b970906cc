//! Base pages that become a huge page or smaller large folios.
//! Input: the workload `collapse`, against `tracer --json`.

use anyhow::{Result, ensure};

use super::exact::{SOON, act, ensure_exact};
use crate::case::{Env, Outcome};
use crate::tracer::trace::Tracing;
use crate::worker::Worker;
use crate::workloads::collapse::WITH_FRAME;

pub fn collapse(env: &Env, by: &str, order: u8) -> Result<Outcome> {
    if order < 9 && env.version() < (7, 2) {
        return Ok(Outcome::NotApplicable(
            "before 7.2 khugepaged makes huge pages only".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("collapse", &[by, &order.to_string()])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    // There is no --kinds here: collapses are shown by default.
    let tracing = Tracing::start(&env.tracer, &["-p", &pid.to_string(), "--backend", "exact"])?;
    let truth = act(&mut worker, "collapse")?;
    let trace = tracing.finish()?;
    let pages = ((truth.end - truth.start) as usize) / rustix::param::page_size();
    ensure!(
        truth.moves.len() == pages / 512 * WITH_FRAME,
        "{} of {pages} pages: not those of the gaps' pattern",
        truth.moves.len()
    );
    ensure_exact(&trace, pid, &truth, &["collapse"])?;
    trace.ensure_rows_in_books()?;
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(line.order == order, "order: {line:?}");
        ensure!(line.blackout_ns.is_some_and(|ns| ns > 0), "blackout: {line:?}");
        let itself = line.actor_pid == pid;
        ensure!(itself == (by == "madvise"), "actor: {line:?}");
        ensure!(
            itself || line.actor_comm.as_deref() == Some("khugepaged"),
            "actor: {line:?}"
        );
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}
