//! The results of one VM's tests, counted and printed as they end.
//! Input: the messages of the guest, and problems of the VM itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use tracer_tests_report::read::Message;
use tracer_tests_report::tally::{Tally, Verdict, result_line};

/// The results of one VM's tests.
#[derive(Default)]
pub struct Results {
    pub tally: Tally,
    pub ended: Vec<Ended>,
}

/// The result of one test.
pub struct Ended {
    pub name: String,
    pub verdict: Verdict,
    pub detail: String,
}

/// One VM's results so far.
pub struct GuestReport<'a> {
    release: String,
    dir: &'a Path,
    /// Tests that the guest has announced and not ended.
    left: usize,
    /// The test that is running.
    open: Option<String>,
    print: &'a dyn Fn(&str),
    results: Results,
}

impl<'a> GuestReport<'a> {
    /// A VM that has reported nothing yet. Files of its tests are written to `dir`, results go as lines to `print`.
    pub fn new(kernel: &str, dir: &'a Path, print: &'a dyn Fn(&str)) -> Self {
        Self {
            release: kernel.to_owned(),
            dir,
            left: 0,
            open: None,
            print,
            results: Results::default(),
        }
    }

    /// Takes the guest's next message.
    pub fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Hello { release, cases } => {
                self.release = release;
                self.left = cases;
            }
            Message::Begin { name } => self.open = Some(name),
            Message::Tick => {}
            Message::File { name, data } => {
                let test = self.open.as_deref().unwrap_or("none").replace('/', "_");
                let dir = self.dir.join(test);
                fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
                fs::write(dir.join(&name), data).with_context(|| format!("store the file {name} of the guest"))?;
            }
            Message::End {
                name,
                verdict,
                took,
                detail,
            } => self.end(&name, verdict, took, &detail),
            // Each test was counted as it ended; if the two counts differ, one of them is wrong.
            Message::Closing { tally } => {
                // Only the guest knows how many tests it did not begin because they do not apply to it.
                let counted = Tally {
                    not_applicable: tally.not_applicable.max(self.results.tally.not_applicable),
                    ..self.results.tally
                };
                ensure!(
                    tally == counted && self.left == 0,
                    "the guest counted {tally}, xtask counted {counted} with {} to come",
                    self.left
                );
                self.results.tally = counted;
            }
        }
        Ok(())
    }

    /// Records a failure of the VM itself. The running test fails with it; without one, the failure counts for `vm`.
    pub fn fail(&mut self, vm: &str, took: Duration, reason: &str) {
        let name = self.open.clone().unwrap_or_else(|| vm.to_owned());
        self.end(&name, Verdict::Failed, took, reason);
    }

    /// Counts the tests that did not run as failed.
    pub fn finish(mut self) -> Results {
        if self.left > 0 {
            let (release, left) = (&self.release, self.left);
            (self.print)(&format!(
                "{release}  {left} more tests did not run, which counts as failed"
            ));
            self.results.tally.failed += left;
        }
        self.results
    }

    fn end(&mut self, name: &str, verdict: Verdict, took: Duration, detail: &str) {
        let line = result_line(name, verdict, took, detail);
        (self.print)(&format!("{:<26}  {line}", self.release));
        self.results.tally.add(verdict);
        self.results.ended.push(Ended {
            name: name.to_owned(),
            verdict,
            detail: detail.to_owned(),
        });
        if self.open.take().is_some() {
            self.left = self.left.saturating_sub(1);
        }
    }
}
