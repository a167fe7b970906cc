//! `cargo xtask vm`: the tests on a matrix of kernels, each in a VM of its own.
//! Input: the command line; the results of each VM as they arrive.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::kernels::{self, Kernel, Spec};
use crate::qemu::{self, Machine, Mebibytes, Outputs};
use crate::report::{Message, Tally, Verdict, result_line};
use crate::watch::{self, Limits};
use crate::{cache, guest, initramfs, process};

/// One full and one cloud build: two kernels, two configurations.
const MATRIX: [&str; 2] = ["debian:6.1", "debian:6.12-cloud"];

#[derive(clap::Args)]
pub struct Args {
    /// A kernel to boot: debian:VERSION[-cloud][@SUITE] or an image file; may be repeated.
    #[arg(long = "kernel", value_name = "KERNEL", default_values = MATRIX)]
    pub kernels: Vec<Spec>,
    /// NUMA nodes of the VM, with one CPU each (one node has two).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    nodes: u32,
    /// Memory of each node.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    mem_per_node: Mebibytes,
    /// How long one VM may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// How long a VM may say nothing; it reports every 5 seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub silence: u64,
    /// VMs at the same time; each keeps one CPU busy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// QEMU's accelerator. Emulation in one thread is the default: it works everywhere, and everywhere the same. With a
    /// thread for each CPU, the kernel may die of an `int3` that another CPU has just patched away while hooks are
    /// attached.
    #[arg(long, default_value = "tcg,thread=single")]
    accel: String,
    /// More words for the kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Test this static program instead of the one built here.
    #[arg(long, value_name = "PATH")]
    tracer: Option<PathBuf>,
    /// Leave the consoles and the files that tests sent in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Only show the tests.
    #[arg(long)]
    list: bool,
    /// Only the tests whose name contains one of these.
    pub names: Vec<String>,
}

impl Args {
    /// What `cargo xtask vm` does without arguments.
    pub fn defaults() -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        <Alone as clap::Parser>::parse_from(["vm"]).args
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    if args.list {
        let programs = guest::build(args.tracer.as_deref())?;
        process::run(Command::new(&programs.tests).arg("list"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tally = matrix(args)?;
    eprintln!("xtask: {:.0} s", started.elapsed().as_secs_f64());
    println!("{}\nvm: {tally}", tally.aside());
    Ok(ExitCode::from(u8::from(tally.is_bad(process::is_ci()))))
}

/// Runs the tests on every kernel, `jobs` at a time.
pub fn matrix(args: &Args) -> Result<Tally> {
    let lab = Lab::new(args)?;
    let queue = Mutex::new(lab.kernels.iter().enumerate().collect::<VecDeque<_>>());
    let total = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while let Some((number, kernel)) = lock(&queue).pop_front() {
                    let name = format!("{number}-{}", kernel.name);
                    let tally = lab.run(args, kernel, &name, &|line| println!("{line}")).tally;
                    let mut total = lock(&total);
                    *total = total.sum(tally);
                }
            });
        }
    });
    let total = *lock(&total);
    Ok(total)
}

/// What VMs are made of.
pub struct Lab {
    pub kernels: Vec<Kernel>,
    scratch: cache::Scratch,
}

impl Lab {
    pub fn new(args: &Args) -> Result<Self> {
        let programs = guest::build(args.tracer.as_deref())?;
        check_names(&programs.tests, &args.names)?;
        qemu::require()?;
        let scratch = cache::Scratch::new()?;
        let content = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        // One after the other: two downloads of the same kernel would only be in each other's way.
        let kernels = args
            .kernels
            .iter()
            .map(kernels::resolve)
            .collect::<Result<Vec<Kernel>>>()?;
        let (tests, tracer) = (content(&programs.tests)?, content(&programs.tracer)?);
        for kernel in &kernels {
            let image = image_for(kernel, &scratch);
            let out = File::create(&image).with_context(|| format!("create {}", image.display()))?;
            initramfs::write(BufWriter::new(out), &tests, &tracer, &kernel.modules).context("write the initramfs")?;
        }
        Ok(Self { kernels, scratch })
    }

    /// Runs one VM, whose files get a directory of that name. Whatever goes wrong is a failed test too.
    pub fn run(&self, args: &Args, kernel: &Kernel, name: &str, print: &dyn Fn(&str)) -> Results {
        let dir = args.keep.as_deref().unwrap_or(self.scratch.path()).join(name);
        let mut run = Run {
            release: kernel.name.clone(),
            dir: &dir,
            left: 0,
            open: None,
            print,
            results: Results::default(),
        };
        let started = Instant::now();
        if let Err(error) = boot(args, kernel, &image_for(kernel, &self.scratch), &dir, |message| {
            run.take(message)
        }) {
            let name = run.open.clone().unwrap_or_else(|| "(the VM)".to_owned());
            run.end(&name, Verdict::Failed, started.elapsed(), &format!("{error:#}"));
        }
        if run.left > 0 {
            let (release, left) = (&run.release, run.left);
            print(&format!(
                "{release}  {left} more tests did not run, which counts as failed"
            ));
            run.results.tally.failed += left;
        }
        run.results
    }
}

/// Each kernel has its own modules.
fn image_for(kernel: &Kernel, scratch: &cache::Scratch) -> PathBuf {
    scratch.path().join(format!("initramfs-{}", kernel.name))
}

/// How the tests of one VM ended.
#[derive(Default)]
pub struct Results {
    pub tally: Tally,
    pub ended: Vec<Ended>,
}

/// How one test ended.
pub struct Ended {
    pub name: String,
    pub verdict: Verdict,
    pub detail: String,
}

/// A thread that panicked has left nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that fits no test would end in an empty success.
fn check_names(tests: &Path, names: &[String]) -> Result<()> {
    let list = process::output(Command::new(tests).arg("list"))?;
    let known: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    for name in names {
        // Hidden tests are not listed; the guest checks their names.
        if !name.starts_with("hidden/") && !known.iter().any(|test| test.contains(name.as_str())) {
            bail!("no test has {name:?} in its name; cargo xtask vm --list shows them all");
        }
        if name.contains([' ', ',']) {
            bail!("{name:?} is no name of a test");
        }
    }
    Ok(())
}

fn boot(
    args: &Args,
    kernel: &Kernel,
    image: &Path,
    dir: &Path,
    on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let outputs = Outputs::in_dir(dir);
    let machine = Machine {
        kernel: &kernel.image,
        initramfs: image,
        nodes: args.nodes,
        per_node: args.mem_per_node,
        accel: &args.accel,
        tests: &args.names,
        append: &args.append,
    };
    let limits = Limits {
        total: Duration::from_secs(args.timeout),
        silence: Duration::from_secs(args.silence),
    };
    watch::watch(machine.start(&outputs)?, &outputs, limits, on_message)
}

/// One VM's results so far.
struct Run<'a> {
    release: String,
    dir: &'a Path,
    /// Tests the guest has promised and not ended.
    left: usize,
    /// The test that is running.
    open: Option<String>,
    print: &'a dyn Fn(&str),
    results: Results,
}

impl Run<'_> {
    fn take(&mut self, message: Message) -> Result<()> {
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
            // Each test was counted as it ended; two counts that differ mean that one of them is wrong.
            Message::Closing { tally } => {
                // The tests that the guest has not even begun, because they are of another place, it alone knows.
                let counted = Tally {
                    not_applicable: tally.not_applicable.max(self.results.tally.not_applicable),
                    ..self.results.tally
                };
                ensure!(
                    tally == counted && self.left == 0,
                    "the guest counted {tally}, here it is {counted} with {} to come",
                    self.left
                );
                self.results.tally = counted;
            }
        }
        Ok(())
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
