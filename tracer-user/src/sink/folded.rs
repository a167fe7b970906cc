//! Folded stacks for flame graphs: `frame;frame;frame MAPPINGS`, one frame for each key by which moves are grouped.
//! Input: events; output: any writer.

use std::{
    io::{self, Write},
    sync::Arc,
};

use crate::{
    analysis::groups::{GroupTables, Key, RunFacts, Sort},
    event::Event,
    run::header::Header,
    section::Cell,
    sink::{Sink, export::Export},
    units::Nanos,
    words::spelled,
};

/// Sums up moves, and writes the sums at the end.
pub struct Folded<W> {
    writer: W,
    tables: GroupTables,
    run: RunFacts,
}

impl<W: Write> Folded<W> {
    /// A frame for each of `keys`, the outermost first.
    pub fn new(writer: W, keys: Vec<Key>) -> Self {
        Self {
            writer,
            tables: GroupTables::new([keys]),
            run: RunFacts {
                begun: Nanos(0),
                host: Arc::default(),
            },
        }
    }
}

impl<W: Write> Sink for Folded<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = RunFacts::from(header);
        self.tables.begin_run();
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if let Event::Move(moved) = event {
            self.tables.add(moved, &self.run);
        }
        Ok(())
    }
}

impl<W: Write> Export for Folded<W> {
    fn takes(&self, event: &Event) -> bool {
        matches!(event, Event::Move(_))
    }

    fn close(&mut self) -> io::Result<()> {
        for groups in &self.tables.tables {
            let from = groups.shown_from();
            for row in groups.sorted(Sort::Name, usize::MAX) {
                // The separator of frames must not be in any of them.
                let frame = |value| spelled(&Cell::from(value)).replace(';', "\\x3b");
                let frames: Vec<String> = row.values().skip(from).map(frame).collect();
                writeln!(self.writer, "{} {}", frames.join(";"), row.group().mappings)?;
            }
            if groups.others.mappings > 0 {
                writeln!(self.writer, "all others {}", groups.others.mappings)?;
            }
        }
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    #[test]
    fn a_line_for_each_stack() {
        let mut hostile = made_up::moved();
        let owner = hostile.owner.as_mut().unwrap();
        owner.comm = Some(Arc::from("a;b\n\x1b[31m"));
        let mut out = Vec::new();
        let mut folded = Folded::new(&mut out, vec![Key::Comm, Key::Vma, Key::Reason]);
        folded.begin(&made_up::header()).unwrap();
        for moved in [made_up::moved(), hostile, made_up::unknown(), made_up::moved()] {
            folded.event(&Event::Move(moved)).unwrap();
        }
        folded.close().unwrap();
        let library = "/usr/lib/x86_64-linux-gnu/libLLVM.so.19.1;syscall_or_cpuset";
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("unknown;unknown;reason_77 512\na\\x3bb\\x0a\\x1b[31m;{library} 2\nfifteen-letters;{library} 4\n")
        );
    }
}
