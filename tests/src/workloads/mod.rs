//! The catalogue of workloads, one per file.
//! Input: the command line.

mod balanced;
mod bulk;
mod cached;
mod changing;
mod churn;
pub mod collapse;
mod contended;
pub mod copy;
mod crowded;
mod echo;
mod end;
mod fleet;
mod flood;
mod hasty;
mod idle;
mod killed;
pub mod ksm;
mod locked;
pub mod mover;
mod own_pid;
mod pid_namespace;
mod protocol;
mod punched;
mod recorder;
mod sharer;
mod silent;
pub mod states;
pub mod swap;
pub mod writeback;
pub mod zram;

use anyhow::{Context, Result};

use self::protocol::Workload;

pub const ALL: &[Workload] = &[
    balanced::WORKLOAD,
    bulk::WORKLOAD,
    cached::WORKLOAD,
    changing::WORKLOAD,
    churn::REBORN,
    churn::WORKLOAD,
    collapse::WORKLOAD,
    contended::WORKLOAD,
    copy::WORKLOAD,
    crowded::WORKLOAD,
    echo::WORKLOAD,
    end::WORKLOAD,
    fleet::WORKLOAD,
    flood::WORKLOAD,
    hasty::WORKLOAD,
    idle::WORKLOAD,
    killed::WORKLOAD,
    ksm::WORKLOAD,
    locked::WORKLOAD,
    mover::WORKLOAD,
    own_pid::WORKLOAD,
    pid_namespace::WORKLOAD,
    punched::WORKLOAD,
    recorder::WORKLOAD,
    silent::WORKLOAD,
    states::WORKLOAD,
    swap::WORKLOAD,
    writeback::WORKLOAD,
    zram::WORKLOAD,
];

#[derive(clap::Args)]
pub struct Args {
    name: String,
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    args: Vec<String>,
}

pub fn main(args: &Args) -> Result<()> {
    let workload = ALL
        .iter()
        .find(|workload| workload.name == args.name)
        .with_context(|| {
            let known: Vec<String> = ALL
                .iter()
                .map(|known| format!("  {}: {}", known.name, known.what))
                .collect();
            format!("no workload {}; there are\n{}", args.name, known.join("\n"))
        })?;
    (workload.run)(&args.args).with_context(|| format!("workload {}", args.name))
}
