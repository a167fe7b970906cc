//! "Harness fails loudly": a failure, a panic, a crash, a silence and a vanished guest are each reported as failed.
//! Input: the results of three VMs that run the cases made for it, `tests/src/cases/bad_ends.rs`.

use std::fmt::Write as _;
use std::thread;

use anyhow::{Context, Result, anyhow};
use tracer_tests_report::shape::Shape;
use tracer_tests_report::tally::{Tally, Verdict};

use super::args::Args;
use super::lab::Lab;
use super::results::Results;

/// No test takes as long. It is enough time for three kernels to boot at once, silently, on two slow CPUs.
const SILENCE: u64 = 45;

/// The cases of one VM, and the results that it has to report.
struct Ordeal {
    /// Each case, and the texts that its reason must contain.
    cases: &'static [(&'static str, &'static [&'static str])],
    /// Cases that come after the VM's end.
    never_run: &'static [&'static str],
}

const ORDEALS: [Ordeal; 3] = [
    Ordeal {
        cases: &[
            (
                "bad_ends/fails",
                &["the outer context", "the inner cause", "this is the output"],
            ),
            ("bad_ends/panics", &["the case died", "panicked at", "on purpose"]),
            ("bad_ends/crash", &["the kernel crashed: ", "--- console, last "]),
        ],
        never_run: &["bad_ends/vanish"],
    },
    Ordeal {
        cases: &[("bad_ends/silence", &["no sign of life for ", "(--silence)"])],
        never_run: &[],
    },
    Ordeal {
        cases: &[("bad_ends/vanish", &["the VM ended ", "before its tests did"])],
        never_run: &[],
    },
];

/// Counts one test per case, and one per VM: its count must have every failure and nothing else.
pub fn check() -> Result<Tally> {
    let defaults = Args::required();
    let first = defaults.first_kernel()?;
    let args = |names: Vec<String>| {
        let mut args = Args::required();
        args.kernels = vec![first.clone()];
        args.silence = SILENCE;
        args.names = names;
        args
    };
    let lab = Lab::new(&args(Vec::new()))?;
    let kernel = lab.kernels.first().context("no kernel")?;
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let vms: Vec<_> = ORDEALS
            .iter()
            .enumerate()
            .map(|(number, ordeal)| {
                let names = ordeal.cases.iter().map(|(name, _)| name).chain(ordeal.never_run);
                let args = args(names.map(|name| (*name).to_owned()).collect());
                let lab = &lab;
                scope.spawn(move || lab.run(&args, kernel, Shape::Plain, &format!("loud-{number}"), &|_| {}))
            })
            .collect();
        for (ordeal, vm) in ORDEALS.iter().zip(vms) {
            let results = vm.join().map_err(|_| anyhow!("a VM's thread panicked"))?;
            for (what, fault) in judge(ordeal, &results) {
                tally.add(if fault.is_none() {
                    Verdict::Passed
                } else {
                    Verdict::Failed
                });
                println!(
                    "{what}: {}",
                    fault.map_or("ok".to_owned(), |fault| format!("FAILED: {fault}"))
                );
            }
        }
        Ok(tally)
    })
}

/// The expectations, each with its fault if there is one.
fn judge(ordeal: &Ordeal, results: &Results) -> Vec<(String, Option<String>)> {
    let mut judged = Vec::new();
    for (name, words) in ordeal.cases {
        let ended: Vec<_> = results.ended.iter().filter(|ended| ended.name == *name).collect();
        let fault = match ended[..] {
            [one] if one.verdict != Verdict::Failed => Some(format!("it ended as {:?}", one.verdict)),
            [one] => words
                .iter()
                .find(|word| !one.detail.contains(**word))
                .map(|word| format!("no {word:?} in the reason: {}", one.detail)),
            _ => Some(format!("{} results instead of one", ended.len())),
        };
        judged.push((format!("{name} is reported with its reason"), fault));
    }
    let expected = Tally {
        failed: ordeal.cases.len() + ordeal.never_run.len(),
        ..Tally::default()
    };
    let mut what = format!("{} failed in the count", expected.failed);
    if !ordeal.never_run.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(
            what,
            ", with what did not run after the end ({})",
            ordeal.never_run.join(", ")
        );
    }
    let good = results.tally == expected && results.tally.is_bad(false);
    let all: Vec<_> = results
        .ended
        .iter()
        .map(|ended| format!("{} {:?}: {}", ended.name, ended.verdict, ended.detail))
        .collect();
    judged.push((
        what,
        (!good).then(|| format!("counted {}\n{}", results.tally, all.join("\n"))),
    ));
    judged
}

#[cfg(test)]
mod tests {
    use super::{ORDEALS, Results, judge};
    use crate::vm::results::Ended;
    use tracer_tests_report::tally::{Tally, Verdict};

    #[test]
    fn only_a_failure_with_its_reason_will_do() {
        let faults = |verdict, detail: &str| {
            let results = Results {
                tally: Tally::of(verdict),
                ended: vec![Ended {
                    name: "bad_ends/vanish".into(),
                    verdict,
                    detail: detail.into(),
                }],
            };
            judge(&ORDEALS[2], &results)
                .iter()
                .filter(|(_, fault)| fault.is_some())
                .count()
        };
        assert_eq!(faults(Verdict::Failed, "the VM ended (0) before its tests did"), 0);
        assert_eq!(faults(Verdict::Failed, "no reason"), 1);
        assert_eq!(faults(Verdict::Passed, "the VM ended (0) before its tests did"), 2);
        assert_eq!(judge(&ORDEALS[2], &Results::default()).len(), 2);
        assert!(
            judge(&ORDEALS[2], &Results::default())
                .iter()
                .all(|(_, fault)| fault.is_some())
        );
    }
}
