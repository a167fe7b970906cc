//! Folded stacks for flame graphs: `frame;frame;frame PAGES`, a frame for each key by which moves are grouped.
//! Input: events; output: any writer.

use std::{
    io::{self, Write},
    sync::Arc,
};

use crate::{
    analysis::{
        groups::{Groups, Key, Run, Sort},
        intervals::Interval,
    },
    event::Event,
    render::groups::words,
    sink::{Header, Sink, Summary, export::Export},
    units::Nanos,
};

/// Sums up moves, and writes the sums at the end.
pub struct Folded<W> {
    writer: W,
    groups: Groups,
    run: Run,
}

impl<W: Write> Folded<W> {
    /// A frame for each of `keys`, the outermost first.
    pub fn new(writer: W, keys: Vec<Key>) -> Self {
        Self {
            writer,
            groups: Groups::new(keys),
            run: Run {
                begun: Nanos(0),
                host: Arc::default(),
            },
        }
    }
}

impl<W: Write> Sink for Folded<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = Run::from(header);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if let Event::Move(moved) = event {
            self.groups.add(moved, &self.run);
        }
        Ok(())
    }

    fn interval(&mut self, _interval: &Interval) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _summary: &Summary) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Export for Folded<W> {
    fn takes(&self, event: &Event) -> bool {
        matches!(event, Event::Move(_))
    }

    fn close(&mut self) -> io::Result<()> {
        let from = self.groups.shown_from();
        for (values, group) in self.groups.sorted(Sort::Name) {
            // What separates frames is in none of them.
            let frames: Vec<String> = values[from..]
                .iter()
                .map(|value| words(value).replace(';', "\\x3b"))
                .collect();
            writeln!(self.writer, "{} {}", frames.join(";"), group.pages)?;
        }
        if self.groups.others.pages > 0 {
            writeln!(self.writer, "all others {}", self.groups.others.pages)?;
        }
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::made_up;

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
