//! The lab for VMs: prepares kernels and initramfs images once, then runs one VM after the other.
//! Input: the command line; the programs; the messages of each VM as they arrive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracer_tests_report::read::Message;
use tracer_tests_report::shape::Shape;
use tracer_tests_report::tally::Tally;

use super::args::{Args, Needed, TOPICS, Topic};
use super::initramfs;
use super::kernels::{self, Kernel, Spec};
use super::qemu::{self, Machine, Outputs};
use super::results::{GuestReport, Results};
use super::watch::{self, Limits};
use crate::host::{cache, process, programs};

/// The parts of VMs.
pub struct Lab {
    pub kernels: Vec<Kernel>,
    /// Kernels that are not available, with the reasons.
    pub missing: Vec<(Spec, Needed, String)>,
    /// The topics of kernels that do not run all of them, by the kernels' names.
    narrowed: BTreeMap<String, Vec<String>>,
    /// The VMs that the chosen tests need for each kernel.
    pub shapes: Vec<Shape>,
    scratch: cache::Scratch,
}

impl Lab {
    pub fn new(args: &Args) -> Result<Self> {
        let programs = programs::build(args.tracer.as_deref())?;
        check_names(&programs.tests, &args.names)?;
        let needed = process::output(Command::new(&programs.tests).arg("shapes").args(&args.names))?;
        let shapes: Result<Vec<Shape>, String> = needed.lines().map(str::parse).collect();
        qemu::require()?;
        let scratch = cache::Scratch::new()?;
        let content = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let mut lab = Self {
            kernels: Vec::new(),
            missing: Vec::new(),
            narrowed: BTreeMap::new(),
            shapes: shapes.map_err(anyhow::Error::msg)?,
            scratch,
        };
        let (tests, tracer) = (content(&programs.tests)?, content(&programs.tracer)?);
        // They are downloaded one after the other, because two downloads of the same kernel would only slow each other
        // down.
        for (number, (spec, needed)) in args.wanted().into_iter().enumerate() {
            match kernels::resolve(&spec) {
                Ok(kernel) => {
                    let image = image_for(&kernel, &lab.scratch);
                    let out = File::create(&image).with_context(|| format!("create {}", image.display()))?;
                    initramfs::write(BufWriter::new(out), &tests, &tracer, &kernel.modules)
                        .context("write the initramfs")?;
                    let narrows = match needed {
                        Needed::No => true,
                        Needed::InCi => args.required,
                        Needed::Yes => false,
                    };
                    let runs = |topic: &&Topic| match needed {
                        Needed::No => topic.of_kernels,
                        Needed::InCi | Needed::Yes => topic.required.get(number) == Some(&true),
                    };
                    if narrows && args.names.is_empty() {
                        let topics = TOPICS.iter().filter(runs).map(|topic| topic.name.to_owned());
                        lab.narrowed.insert(kernel.name.clone(), topics.collect());
                    }
                    lab.kernels.push(kernel);
                }
                Err(error) => lab.missing.push((spec, needed, format!("{error:#}"))),
            }
        }
        Ok(lab)
    }

    /// Counts failed tests for missing kernels: one for each kernel that the run requires, and at least one if there is
    /// no kernel at all.
    pub fn absent(&self) -> Tally {
        let bad = |needed| match needed {
            Needed::Yes => true,
            Needed::InCi => process::is_ci(),
            Needed::No => false,
        };
        let failed = self.missing.iter().filter(|(_, needed, _)| bad(*needed)).count();
        Tally {
            failed: failed.max(usize::from(self.kernels.is_empty())),
            ..Tally::default()
        }
    }

    /// Runs one VM, whose files get a directory of that name. Any problem counts as a failed test, too.
    pub fn run(&self, args: &Args, kernel: &Kernel, shape: Shape, name: &str, print: &dyn Fn(&str)) -> Results {
        let dir = args.keep.as_deref().unwrap_or(self.scratch.path()).join(name);
        let mut report = GuestReport::new(&kernel.name, &dir, print);
        let started = Instant::now();
        let image = image_for(kernel, &self.scratch);
        let names = self.narrowed.get(&kernel.name).unwrap_or(&args.names);
        if let Err(error) = boot(args, kernel, shape, names, &image, &dir, |message| report.take(message)) {
            report.fail(
                &format!("(the {} VM)", shape.name()),
                started.elapsed(),
                &format!("{error:#}"),
            );
        }
        report.finish()
    }
}

/// Each kernel has an image of its own, with its own modules.
fn image_for(kernel: &Kernel, scratch: &cache::Scratch) -> PathBuf {
    scratch.path().join(format!("initramfs-{}", kernel.name))
}

/// Checks that each name fits a test; otherwise the run would succeed without any test.
fn check_names(tests: &Path, names: &[String]) -> Result<()> {
    let list = process::output(Command::new(tests).arg("list"))?;
    let known: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    for name in names {
        // Hidden tests are not listed; the guest checks their names.
        if !name.starts_with("bad_ends/") && !known.iter().any(|test| test.contains(name.as_str())) {
            bail!("no test has {name:?} in its name; cargo xtask vm --list shows them all");
        }
        if name.contains([' ', ',']) {
            bail!("{name:?} is not the name of a test");
        }
    }
    Ok(())
}

fn boot(
    args: &Args,
    kernel: &Kernel,
    shape: Shape,
    names: &[String],
    image: &Path,
    dir: &Path,
    on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let outputs = Outputs::in_dir(dir);
    // The given directory may hold files of another run, which must not be taken for this run's.
    for stale in [&outputs.console, &outputs.results, &outputs.qemu] {
        if stale.exists() {
            fs::remove_file(stale).with_context(|| format!("remove {}", stale.display()))?;
        }
    }
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: image,
        shape,
        nodes: args.nodes,
        per_node: args.mem_per_node,
        accel: &args.accel,
        tests: names,
        append: &args.append,
    };
    let limits = Limits {
        total: Duration::from_secs(args.timeout),
        silence: Duration::from_secs(args.silence),
    };
    watch::watch(machine.start(&outputs)?, &outputs, limits, on_message)
}
