//! Process numbers used again and again, while pages are on the move: no event may go to a wrong process.
//! Input: the workload `churn` and its log, against `tracer --json`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::child::Worker;
use crate::lives::Lives;
use crate::tracing::Tracing;

const LONG: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_mins(1);
/// Lives of each of the two families.
const LIVES: &str = "200";
/// Fewer pages, lives and numbers with several lives than these prove little.
const ENOUGH: (u64, usize, usize) = (2000, 100, 10);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

pub const CASES: &[Case] = &[
    Case {
        name: "churn/all",
        what: "-a while processes come, become others and go, under few numbers: every event is of who it says",
        needs: NEEDS,
        run: |env| churn(env, false, "exact"),
    },
    Case {
        name: "churn/all_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| churn(env, false, "tracepoint"),
    },
    Case {
        name: "churn/children",
        what: "the same with -p and the children it will have",
        needs: NEEDS,
        run: |env| churn(env, true, "exact"),
    },
    Case {
        name: "churn/children_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| churn(env, true, "tracepoint"),
    },
];

fn churn(env: &Env, one_tree: bool, backend: &str) -> Result<Outcome> {
    let log = env.scratch.join("lives");
    let mut worker = Worker::spawn("churn", &[&log.to_string_lossy(), LIVES])?;
    worker.wait_ready(SOON)?;
    let pid = worker.pid().to_string();
    let target: &[&str] = if one_tree { &["-p", &pid] } else { &["-a"] };
    let tracing = Tracing::start(&env.tracer, &[target, &["--backend", backend]].concat())?;
    worker.send("go")?;
    worker.read_line(LONG)?;
    let trace = tracing.finish()?;
    let lives = Lives::read(&log)?;
    let found = lives.check(&trace.moves, None)?;
    println!(
        "{found:?} of {} lines; {} numbers used again",
        trace.moves.len(),
        lives.reused()
    );
    worker.exit(SOON)?;
    let (pages, owners, reused) = ENOUGH;
    ensure!(
        found.pages >= pages && found.lives >= owners && found.reused >= reused,
        "nothing is proven: {found:?}"
    );
    if backend == "exact" {
        trace.ensure_exact_books()?;
    }
    Ok(Outcome::Passed)
}
