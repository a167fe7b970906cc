//! The command line of `cargo xtask vm`, and its default kernels and topics.
//! Input: the words of the command line.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::kernels::Spec;
use super::shape::Mebibytes;

/// The kernels that are tested by default, and which of them CI requires: the others are in suites that come and go.
/// The first is a full build, the others are cloud builds: two configurations.
const MATRIX: [(&str, Needed); 5] = [
    ("debian:6.1", Needed::InCi),
    ("debian:6.12-cloud", Needed::InCi),
    ("debian:6.18-cloud@trixie-backports", Needed::No),
    ("debian:7.2-cloud@sid", Needed::No),
    ("debian:7.3-cloud@experimental", Needed::No),
];

/// The topics that do not run on every kernel of the matrix, or not on both that CI requires.
///
/// Both required kernels have most of the truth suite, and one of them each other topic here. Topics that are not listed run
/// on the machine itself, and on the required kernels in a run of all kernels: repeated in CI, they would take a slow
/// machine beyond 50 minutes.
pub const TOPICS: [Topic; 18] = [
    Topic::new("harness/", [true, true]),
    Topic::new("doctor/", [true, true]).of_kernels(),
    Topic::new("moves/", [true, true]).of_truth(),
    Topic::new("kinds/", [true, true]).of_truth(),
    Topic::new("reasons/", [true, true]).of_truth(),
    Topic::new("unmapped/", [true, true]).of_truth(),
    Topic::new("churn/", [false, true]).of_truth(),
    Topic::new("flood/", [true, true]).of_truth(),
    Topic::new("outside/", [false, true]).of_truth(),
    Topic::new("failure/", [true, true]).of_truth(),
    Topic::new("compaction/", [true, true]).of_truth(),
    Topic::new("filters/", [true, false]).of_kernels(),
    Topic::new("books/", [true, true]).of_kernels(),
    Topic::new("cli/", [true, false]),
    Topic::new("command/", [true, false]),
    Topic::new("ending/", [true, false]),
    Topic::new("pages/", [false, true]),
    Topic::new("confinement/", [true, true]).of_kernels(),
];

/// The cases of a file of `tests/src/cases/`.
pub struct Topic {
    /// The begin of the cases' names.
    pub name: &'static str,
    /// Whether each required kernel runs it in CI, in the order of [`MATRIX`].
    pub required: [bool; 2],
    /// It depends on the kernel. If no test is named, the kernels that CI does not require run only such topics.
    pub of_kernels: bool,
    /// Its cases compare tracer's reports with the facts of a workload.
    pub of_truth: bool,
}

impl Topic {
    const fn new(name: &'static str, required: [bool; 2]) -> Self {
        Self {
            name,
            required,
            of_kernels: false,
            of_truth: false,
        }
    }

    const fn of_kernels(self) -> Self {
        Self {
            of_kernels: true,
            ..self
        }
    }

    /// A topic of the truth depends on the kernel, too.
    const fn of_truth(self) -> Self {
        Self {
            of_truth: true,
            ..self.of_kernels()
        }
    }
}

/// Whether a run fails without a kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Named on the command line.
    Yes,
    InCi,
    No,
}

#[derive(clap::Args)]
pub struct Args {
    /// A kernel to boot: debian:VERSION[-cloud][@SUITE] or an image file; may be repeated [default: debian:6.1,
    /// debian:6.12-cloud, debian:6.18-cloud@trixie-backports, debian:7.2-cloud@sid, debian:7.3-cloud@experimental, as
    /// far as they are available].
    #[arg(long = "kernel", value_name = "KERNEL")]
    pub kernels: Vec<Spec>,
    /// Use only the default kernels that CI requires. If no test is named, each runs its share of the topics.
    #[arg(long, conflicts_with = "kernels")]
    pub required: bool,
    /// NUMA nodes of the plain VM (some tests need a VM of another shape), with one CPU each (one node has two).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes: u32,
    /// Memory of each node.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub mem_per_node: Mebibytes,
    /// The longest time that one VM may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 2700)]
    pub timeout: u64,
    /// The longest time that a VM may be silent; it reports every 5 seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub silence: u64,
    /// VMs at the same time; each keeps one CPU busy.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// QEMU's accelerator. Emulation in one thread is the default, because it works everywhere in the same way. With a
    /// thread for each CPU, the kernel may die of an `int3` that another CPU has just patched away while hooks are
    /// attached.
    #[arg(long, default_value = "tcg,thread=single")]
    pub accel: String,
    /// More words for the kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Test this static program instead of the one built here.
    #[arg(long, value_name = "PATH")]
    pub tracer: Option<PathBuf>,
    /// Leave the consoles and the files that tests sent in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Only list the tests.
    #[arg(long)]
    pub list: bool,
    /// Only the tests whose name contains one of these.
    pub names: Vec<String>,
}

impl Args {
    /// The arguments of `cargo xtask vm --required`.
    pub fn required() -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        <Alone as clap::Parser>::parse_from(["vm", "--required"]).args
    }

    /// The kernel for tests that need only one.
    pub fn first_kernel(&self) -> Result<Spec> {
        let (first, _) = self.wanted().into_iter().next().context("no kernel by default")?;
        Ok(first)
    }

    /// The kernels to boot.
    pub fn wanted(&self) -> Vec<(Spec, Needed)> {
        if !self.kernels.is_empty() {
            return self.kernels.iter().map(|spec| (spec.clone(), Needed::Yes)).collect();
        }
        // A unit test fails if a text of the matrix is not a kernel's name.
        let parsed = MATRIX.into_iter().map(|(text, needed)| Ok((text.parse()?, needed)));
        let kernels = parsed.filter_map(Result::<_, String>::ok);
        kernels
            .filter(|(_, needed)| !self.required || *needed == Needed::InCi)
            .collect()
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
