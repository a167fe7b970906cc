//! `cargo xtask vm`: the tests on a matrix of kernels, each in a VM of its own.
//! Input: the command line; the results of each VM as they arrive.

use std::collections::{BTreeSet, VecDeque};
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
use crate::shape::Shape;
use crate::table::{self, Column};
use crate::watch::{self, Limits};
use crate::{cache, guest, initramfs, process};

/// The kernels that are tested where none is named, and which of them CI cannot do without: the others are in suites
/// that come and go. A full build and cloud builds: two configurations.
const MATRIX: [(&str, Needed); 5] = [
    ("debian:6.1", Needed::InCi),
    ("debian:6.12-cloud", Needed::InCi),
    ("debian:6.18-cloud@trixie-backports", Needed::No),
    ("debian:7.2-cloud@sid", Needed::No),
    ("debian:7.3-cloud@experimental", Needed::No),
];

/// The topics that depend on the kernel. Where no test is named, the kernels that CI could do without run these alone:
/// the command line is the same on all.
const OF_KERNELS: [&str; 10] = [
    "doctor/",
    "moves/",
    "kinds/",
    "reasons/",
    "churn/",
    "outside/",
    "failures/",
    "compaction/",
    "filters/",
    "books/",
];

/// Whether a run fails without a kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// Named on the command line.
    Yes,
    InCi,
    No,
}

#[derive(clap::Args)]
pub struct Args {
    /// A kernel to boot: debian:VERSION[-cloud][@SUITE] or an image file; may be repeated [default: debian:6.1,
    /// debian:6.12-cloud, debian:6.18-cloud@trixie-backports, debian:7.2-cloud@sid, debian:7.3-cloud@experimental, as
    /// far as they can be had].
    #[arg(long = "kernel", value_name = "KERNEL")]
    pub kernels: Vec<Spec>,
    /// Of the default kernels, only those that CI cannot do without.
    #[arg(long, conflicts_with = "kernels")]
    required: bool,
    /// NUMA nodes of the plain VM (some tests need a VM of another shape), with one CPU each (one node has two).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    nodes: u32,
    /// Memory of each node.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    mem_per_node: Mebibytes,
    /// How long one VM may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
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
    /// What `cargo xtask vm --required` does.
    pub fn required() -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        <Alone as clap::Parser>::parse_from(["vm", "--required"]).args
    }

    /// The one for what one kernel can show.
    pub fn first_kernel(&self) -> Result<Spec> {
        let (first, _) = self.wanted().into_iter().next().context("no kernel by default")?;
        Ok(first)
    }

    /// The kernels to boot.
    fn wanted(&self) -> Vec<(Spec, Needed)> {
        if !self.kernels.is_empty() {
            return self.kernels.iter().map(|spec| (spec.clone(), Needed::Yes)).collect();
        }
        // What of the matrix is no kernel's name fails a unit test.
        let parsed = MATRIX.into_iter().map(|(text, needed)| Ok((text.parse()?, needed)));
        let kernels = parsed.filter_map(Result::<_, String>::ok);
        kernels
            .filter(|(_, needed)| !self.required || *needed == Needed::InCi)
            .collect()
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

/// Runs the tests on every kernel, `jobs` VMs at a time, and prints which ones ran and what was proven where.
pub fn matrix(args: &Args) -> Result<Tally> {
    let lab = Lab::new(args)?;
    let columns: Vec<Mutex<Column>> = lab
        .kernels
        .iter()
        .map(|kernel| {
            Mutex::new(Column {
                release: kernel.name.clone(),
                ended: Vec::new(),
            })
        })
        .collect();
    let total = Mutex::new(lab.absent());
    let vms = lab.kernels.iter().zip(&columns).enumerate();
    let queue: VecDeque<_> = vms
        .flat_map(|(number, (kernel, column))| lab.shapes.iter().map(move |shape| (number, kernel, *shape, column)))
        .collect();
    let queue = Mutex::new(queue);
    // A function of its own: in the head of the loop the lock would be held until the VM has ended.
    let next = || lock(&queue).pop_front();
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                while let Some((number, kernel, shape, column)) = next() {
                    let name = format!("{number}-{}-{}", kernel.name, shape.name());
                    let results = lab.run(args, kernel, shape, &name, &|line| println!("{line}"));
                    let mut total = lock(&total);
                    *total = total.sum(results.tally);
                    lock(column).ended.extend(results.ended);
                }
            });
        }
    });
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|column| column.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect();
    println!("\n{}", table::table(&columns));
    for kernel in &lab.kernels {
        println!("ran on {}", kernel.banner().unwrap_or_else(|| kernel.name.clone()));
    }
    for (spec, _, reason) in &lab.missing {
        println!("not to be had: {spec}: {reason}");
    }
    let total = *lock(&total);
    Ok(total)
}

/// What VMs are made of.
pub struct Lab {
    pub kernels: Vec<Kernel>,
    /// Kernels that could not be had, and why.
    missing: Vec<(Spec, Needed, String)>,
    /// Names of kernels that run the topics of `OF_KERNELS` alone.
    narrowed: BTreeSet<String>,
    /// The VMs that the chosen tests need of each kernel.
    shapes: Vec<Shape>,
    scratch: cache::Scratch,
}

impl Lab {
    pub fn new(args: &Args) -> Result<Self> {
        let programs = guest::build(args.tracer.as_deref())?;
        check_names(&programs.tests, &args.names)?;
        let needed = process::output(Command::new(&programs.tests).arg("shapes").args(&args.names))?;
        let shapes: Result<Vec<Shape>, String> = needed.lines().map(str::parse).collect();
        qemu::require()?;
        let scratch = cache::Scratch::new()?;
        let content = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let mut lab = Self {
            kernels: Vec::new(),
            missing: Vec::new(),
            narrowed: BTreeSet::new(),
            shapes: shapes.map_err(anyhow::Error::msg)?,
            scratch,
        };
        let (tests, tracer) = (content(&programs.tests)?, content(&programs.tracer)?);
        // One after the other: two downloads of the same kernel would only be in each other's way.
        for (spec, needed) in args.wanted() {
            match kernels::resolve(&spec) {
                Ok(kernel) => {
                    let image = image_for(&kernel, &lab.scratch);
                    let out = File::create(&image).with_context(|| format!("create {}", image.display()))?;
                    initramfs::write(BufWriter::new(out), &tests, &tracer, &kernel.modules)
                        .context("write the initramfs")?;
                    if needed == Needed::No && args.names.is_empty() {
                        lab.narrowed.insert(kernel.name.clone());
                    }
                    lab.kernels.push(kernel);
                }
                Err(error) => lab.missing.push((spec, needed, format!("{error:#}"))),
            }
        }
        Ok(lab)
    }

    /// A kernel without which this run proves too little is a failed test; no kernel at all is one too.
    fn absent(&self) -> Tally {
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

    /// Runs one VM, whose files get a directory of that name. Whatever goes wrong is a failed test too.
    pub fn run(&self, args: &Args, kernel: &Kernel, shape: Shape, name: &str, print: &dyn Fn(&str)) -> Results {
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
        let image = image_for(kernel, &self.scratch);
        let names = if self.narrowed.contains(&kernel.name) {
            OF_KERNELS.map(str::to_owned).to_vec()
        } else {
            args.names.clone()
        };
        if let Err(error) = boot(args, kernel, shape, &names, &image, &dir, |message| run.take(message)) {
            let name = run.open.clone().unwrap_or_else(|| format!("(the {} VM)", shape.name()));
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
    shape: Shape,
    names: &[String],
    image: &Path,
    dir: &Path,
    on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let outputs = Outputs::in_dir(dir);
    // A directory that was given may hold those of another run, which must not be taken for this one's.
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

#[cfg(test)]
mod tests {
    use super::{Args, MATRIX};

    #[test]
    fn the_matrix_is_of_kernels_and_the_help_names_them() {
        let args = Args {
            required: false,
            ..Args::required()
        };
        let wanted: Vec<String> = args.wanted().iter().map(|(spec, _)| spec.to_string()).collect();
        assert_eq!(wanted, MATRIX.map(|(text, _)| text));
        let help = <Args as clap::Args>::augment_args(clap::Command::new("vm")).render_long_help();
        let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&wanted.join(", ")), "{help}");
    }
}
