//! Runs every kernel with every shape of VM that the chosen tests need, and collects what was proven on each.
//! Input: the command line; the results of each VM.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use tracer_tests_report::tally::Tally;

use super::args::Args;
use super::lab::Lab;
use super::table::{self, Column};

/// Runs the tests on every kernel, `jobs` VMs at a time, and prints which tests ran and what was proven on each kernel.
pub fn run(args: &Args) -> Result<Tally> {
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
    // This is a closure of its own: in the head of the loop, the lock would be held until the VM has ended.
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
    println!("\n{}\n{}", table::table(&columns), table::failures(&columns));
    for kernel in &lab.kernels {
        println!("ran on {}", kernel.banner().unwrap_or_else(|| kernel.name.clone()));
    }
    for (spec, _, reason) in &lab.missing {
        println!("not available: {spec}: {reason}");
    }
    let total = *lock(&total);
    Ok(total)
}

/// Locks even after a panic: a thread that panicked has left no incomplete change in these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
