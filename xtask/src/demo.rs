//! `cargo xtask demo`: traces a process of its own, whose pages the kernel is requested to move.
//! Input: the lines that tracer prints; the victim's `ready`.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe, stdin};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::host::memory::{Pages, meminfo};
use crate::host::process::{self, Guard};

const SECONDS: &str = "5";
/// Whether compaction moves anything depends on where the kernel put the pages. So the demo tries again, within a run
/// of tracer and with another one.
const RUNS: u32 = 4;
const AGAIN_AFTER: Duration = Duration::from_millis(400);
/// The memory that the process fills at first; each try fills more.
const FIRST_MIB: usize = 64;
/// With fewer rows than this, compaction is requested once more.
const ENOUGH: usize = 20;
/// Compaction stops at the first folio for which it finds no room. The next request begins from the bottom.
const AT_ONCE: u32 = 4;
/// More rows would push the others off the screen.
const ROWS_SHOWN: usize = 12;
const COMPACT: &str = "/proc/sys/vm/compact_memory";

/// Watch pages move: traces a process made for it while the kernel compacts memory
#[derive(clap::Args)]
pub struct Args {
    /// Use this tracer instead of building one.
    #[arg(long, value_name = "PATH")]
    tracer: Option<PathBuf>,
    /// Act as the process whose pages move, with this number of MiB at first; the demo starts this.
    #[arg(long, value_name = "MIB", hide = true)]
    victim: Option<usize>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if let Some(mib) = args.victim {
        return victim(mib << 20).map(|()| ExitCode::SUCCESS);
    }
    let tracer = match &args.tracer {
        Some(given) => given.clone(),
        None => build()?,
    };
    let root = Root::find(&tracer)?;
    for run in 1..=RUNS {
        let rows = once(&root, &tracer, FIRST_MIB << (run - 1))?;
        if rows > 0 {
            println!("\nThe same for a process of yours, in one terminal and in another:");
            println!("  {} --pid PID", process::shown(&root.command(&from_here(&tracer))));
            println!("  {}", root.compaction());
            return Ok(ExitCode::SUCCESS);
        }
        if run < RUNS {
            println!("\nThe kernel found nothing worth moving in this process; another one ({run} of {RUNS}):");
        }
    }
    println!("\nIn {RUNS} runs the kernel moved no page of the process: its memory has no need of compaction now.");
    println!("Nothing is broken; try again later, or trace what is busy: tracer --all");
    Ok(ExitCode::from(1))
}

/// Stable Rust alone builds it, because the BPF object is part of the repository.
fn build() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo.args(["build", "--release", "--package", "tracer-user"]);
    println!("$ cargo build --release --package tracer-user");
    process::run(&mut cargo)?;
    Ok(process::target_dir().join("release/tracer"))
}

/// A path as a user would type it here.
fn from_here(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

/// The way in which commands that need root are started.
enum Root {
    /// This process is root.
    Already,
    Sudo,
}

impl Root {
    fn find(tracer: &Path) -> Result<Self> {
        if process::is_root() {
            return Ok(Self::Already);
        }
        // Requests the password now, so that the prompt does not come between the lines of tracer.
        let usable = process::find("sudo").is_some()
            && Command::new("sudo")
                .arg("true")
                .status()
                .is_ok_and(|status| status.success());
        if usable {
            return Ok(Self::Sudo);
        }
        let demo = env::current_exe().context("find this program")?;
        bail!(
            "tracing the kernel needs root, and sudo does not give it here; type: su -c '{} demo --tracer {}'",
            demo.display(),
            tracer.display()
        )
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Already => Command::new(program),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg(program);
                sudo
            }
        }
    }

    /// The command for [`Root::compact`], as a user would type it.
    fn compaction(&self) -> String {
        match self {
            Self::Already => format!("echo 1 > {COMPACT}"),
            Self::Sudo => format!("echo 1 | sudo tee {COMPACT}"),
        }
    }

    /// Requests compaction of all memory, and returns when it is done.
    fn compact(&self) -> Result<()> {
        match self {
            Self::Already => {
                fs::write(COMPACT, "1").with_context(|| format!("write {COMPACT} (CONFIG_COMPACTION)"))?;
            }
            Self::Sudo => {
                let (reader, mut writer) = pipe().context("make a pipe")?;
                writer.write_all(b"1\n").context("write into a pipe")?;
                drop(writer);
                process::run(
                    Command::new("sudo")
                        .args(["tee", COMPACT])
                        .stdin(reader)
                        .stdout(Stdio::null()),
                )?;
            }
        }
        Ok(())
    }
}

/// One run of tracer on a new victim. Returns how many rows it printed.
///
/// No process outlives this one: the terminal sends Ctrl-C to all three. If only this one is killed, the victim dies
/// with it. tracer, which may not be killed from here under sudo, ends because its process is gone.
fn once(root: &Root, tracer: &Path, mib: usize) -> Result<usize> {
    let mut victim = Victim::start(mib)?;
    let pid = victim.pid.to_string();
    let mut command = root.command(&from_here(tracer));
    command.args(["--pid", &pid, "--duration", SECONDS]);
    println!("\n$ {}", process::shown(&command));
    let (mut tracing, said) = start(command)?;

    let mut page = Page::default();
    let mut attached = false;
    let mut asked: Option<Instant> = None;
    loop {
        match said.recv_timeout(Duration::from_millis(100)) {
            Ok(Said::Err(line)) => {
                eprintln!("{line}");
                // The greeting is printed when every hook is attached.
                attached |= line.contains(" · Linux ");
            }
            Ok(Said::Out(line)) => page.line(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let due = asked.is_none_or(|at| at.elapsed() >= AGAIN_AFTER);
        if attached && due && page.rows < ENOUGH && !page.closing {
            if asked.is_some() {
                victim.again()?;
            }
            println!("$ {}    ({AT_ONCE} times)", root.compaction());
            for _ in 0..AT_ONCE {
                root.compact()?;
            }
            asked = Some(Instant::now());
        }
    }
    let status = wait(&mut tracing)?;
    // 1: complete except for losses, which tracer has shown. 2: tracer has printed the reason.
    ensure!(matches!(status.code(), Some(0 | 1)), "tracer: {status}");
    Ok(page.rows)
}

/// A line that tracer printed.
enum Said {
    Out(String),
    Err(String),
}

fn start(mut command: Command) -> Result<(Guard, Receiver<Said>)> {
    let (out, out_writer) = pipe().context("make a pipe")?;
    let (err, err_writer) = pipe().context("make a pipe")?;
    let tracing = Guard::spawn(command.stdout(out_writer).stderr(err_writer))?;
    let (sender, said) = channel();
    forward(out, sender.clone(), Said::Out);
    forward(err, sender, Said::Err);
    // Dropping the command closes this process's ends of the pipes, so that they end with tracer.
    drop(command);
    Ok((tracing, said))
}

fn forward(from: PipeReader, to: Sender<Said>, said: fn(String) -> Said) {
    thread::spawn(move || {
        // Text that is not UTF-8 is converted as well as possible. An error means the pipe's end.
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send(said(String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
        }
    });
}

/// Waits for tracer, whose output has ended.
fn wait(tracing: &mut Guard) -> Result<ExitStatus> {
    loop {
        if let Some(status) = tracing.ended()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Passes tracer's stdout on without most of its rows.
#[derive(Default)]
struct Page {
    heading: bool,
    rows: usize,
    /// Whether the rows are over.
    closing: bool,
}

impl Page {
    /// Rows follow a heading and end with an empty line; without rows there is neither.
    fn line(&mut self, line: &str) {
        if !self.heading && line.starts_with("TIME ") {
            self.heading = true;
        } else if !self.heading || line.is_empty() {
            if !self.closing && self.rows > ROWS_SHOWN {
                println!("(and {} rows more)", self.rows - ROWS_SHOWN);
            }
            self.closing = true;
        } else if !self.closing {
            self.rows += 1;
            if self.rows > ROWS_SHOWN {
                return;
            }
        }
        println!("{line}");
    }
}

/// The process whose pages move, as the demo sees it. It dies with this process.
struct Victim {
    pid: u32,
    orders: PipeWriter,
    answers: BufReader<PipeReader>,
    _process: Guard,
}

impl Victim {
    fn start(mib: usize) -> Result<Self> {
        let (order_reader, orders) = pipe().context("make a pipe")?;
        let (answers, answer_writer) = pipe().context("make a pipe")?;
        let mut command = Command::new(env::current_exe().context("find this program")?);
        command
            .args(["demo", "--victim", &mib.to_string()])
            .stdin(order_reader)
            .stdout(answer_writer);
        let mut victim = Self {
            pid: 0,
            orders,
            answers: BufReader::new(answers),
            _process: Guard::spawn(&mut command)?,
        };
        drop(command);
        victim.pid = victim.ready()?;
        Ok(victim)
    }

    /// Makes it fill its memory anew, and more of it.
    fn again(&mut self) -> Result<()> {
        writeln!(self.orders, "again").context("request the process to fill its memory again")?;
        self.ready().map(drop)
    }

    fn ready(&mut self) -> Result<u32> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .context("read the answer of the process")?;
        let pid = line.trim_end().strip_prefix("ready ");
        pid.and_then(|pid| pid.parse().ok())
            .context("the process ended before it had filled its memory (too little memory?)")
    }
}

/// The size of the ballast, in sizes of the memory itself.
const BALLAST: usize = 3;
/// Memory and ballast together take at most half of the available memory, and filling them takes only a moment.
const MOST: usize = 256 << 20;

/// Fills memory and gives back three of four pages, once at the start, and again on each line of stdin with twice the
/// size.
fn victim(mut len: usize) -> Result<()> {
    rustix::thread::set_name(c"demo-victim").context("take a name")?;
    let mut lines = stdin().lines();
    loop {
        len = len.min(MOST).min(meminfo("MemAvailable")? / 2 / (1 + BALLAST));
        // Compaction moves pages up, so pages at the top of the zone stay. The kernel hands out the top first: ballast
        // takes the top and leaves it free again.
        let ballast = Pages::filled(BALLAST * len)?;
        let mut memory = Pages::filled(len)?;
        drop(ballast);
        memory.punch()?;
        println!("ready {}", std::process::id());
        // The end of stdin is the end of the demo.
        if lines.next().is_none() {
            return Ok(());
        }
        len *= 2;
    }
}
