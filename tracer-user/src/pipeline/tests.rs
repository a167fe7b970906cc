//! Live runs of a made-up source: each sink is begun and finished once, however the run ends.
//! Input: turns that are listed here.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::*;
use crate::{
    kernel::vmstat::Vmstat,
    made_up,
    run::{
        account::Terms,
        attribution::Losses,
        backend::Backend,
        counters::{Counters, MissedRuns},
        coverage::Coverage,
        ending::Ending,
        kept::Unfinished,
    },
    sink::several::Several,
};
use tracer_common::counter::Counter;

/// One turn of a made-up source.
enum Step {
    Moves(usize),
    /// This number of records cannot be decoded.
    Loses(u64),
    TargetsEnd,
    Fails,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Made,
    Begun,
    Stopped,
}

#[derive(Default)]
struct MadeUp {
    steps: VecDeque<Step>,
    /// Moves that arrive only after the source was stopped.
    late: usize,
    lost: u64,
    moved: Cell<u64>,
    targets_gone: bool,
    state: State,
    /// Pages of events in a call that does not end.
    under_way: u64,
    no_counters: bool,
    ending: Ending,
    /// Whether all steps have been taken.
    is_drained: Rc<Cell<bool>>,
}

impl MadeUp {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    fn give(&self, events: &mut Vec<Event>, moves: usize) -> Turn {
        self.moved.set(self.moved.get() + moves as u64);
        events.extend(vec![Event::Move(made_up::moved()); moves]);
        Turn::All
    }
}

impl Source for MadeUp {
    fn coverage(&self) -> Coverage {
        Backend::Exact.coverage()
    }

    fn terms(&self) -> Terms {
        Terms::new(&self.coverage(), &crate::event::Names::reasons(std::iter::empty()))
    }

    fn heed(&mut self, ending: Ending) -> io::Result<()> {
        self.ending = ending;
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.state = State::Begun;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn under_way(&self) -> io::Result<UnderWay> {
        Ok(UnderWay {
            calls: u64::from(self.under_way > 0),
            pages: self.under_way,
        })
    }

    fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<Turn> {
        assert!(self.state != State::Made, "nothing comes before the first reading");
        if self.state == State::Stopped {
            return Ok(match std::mem::take(&mut self.late) {
                0 => Turn::Empty,
                late => self.give(events, late),
            });
        }
        match self.steps.pop_front() {
            None => {
                self.is_drained.set(true);
                return Ok(Turn::Empty);
            }
            Some(Step::Moves(moves)) => return Ok(self.give(events, moves)),
            Some(Step::Loses(events)) => self.lost += events,
            Some(Step::TargetsEnd) => self.targets_gone = true,
            Some(Step::Fails) => return Err(io::Error::other("the source fails")),
        }
        Ok(Turn::All)
    }

    fn census(&mut self) {}

    fn targets_gone(&self) -> bool {
        self.targets_gone
    }

    fn waker(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn arm(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn look(&self) -> io::Result<Reading> {
        if self.no_counters {
            return Err(io::Error::other("no counters"));
        }
        let moved = self.moved.get();
        Ok(Reading {
            kernel: Vmstat::parse(format!("pgmigrate_success {moved}").as_bytes()),
            counters: Counters::made_up(&[(Counter::MovedPages, moved), (Counter::ReportedPages, moved)]),
            ..Reading::default()
        })
    }

    fn lost(&self, reading: &Reading) -> io::Result<Lost> {
        Ok(Lost::new(
            &reading.counters,
            self.lost,
            MissedRuns::default(),
            self.attribution(),
        ))
    }

    fn attribution(&self) -> Losses {
        Losses::default()
    }

    fn stop(&mut self) -> io::Result<()> {
        assert!(self.ending.is_here(), "whoever waits must know of the end");
        self.state = State::Stopped;
        Ok(())
    }
}

/// The calls that a sink received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Calls {
    begun: u32,
    events: u64,
    abandoned: u32,
    /// The events of the summary and the lost events, for each end.
    finished: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Counting {
    calls: Rc<RefCell<Calls>>,
    /// The event after which it fails, and the kind of error.
    fails: Option<(u64, io::ErrorKind)>,
    fails_at_end: bool,
}

impl Sink for Counting {
    fn begin(&mut self, _header: &Header) -> io::Result<()> {
        self.calls.borrow_mut().begun += 1;
        Ok(())
    }

    fn event(&mut self, _event: &Event) -> io::Result<()> {
        let mut calls = self.calls.borrow_mut();
        calls.events += 1;
        match self.fails {
            Some((after, kind)) if calls.events >= after => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn abandon(&mut self, _unfinished: &Unfinished) -> io::Result<()> {
        self.calls.borrow_mut().abandoned += 1;
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let end = (summary.totals.events, summary.books.lost.events());
        self.calls.borrow_mut().finished.push(end);
        if self.fails_at_end {
            return Err(io::Error::other("the sink fails"));
        }
        Ok(())
    }
}

/// The end of a run, and the calls that each of its sinks received.
struct Ran {
    end: io::Result<End>,
    summary: io::Result<Summary>,
    calls: Vec<Calls>,
}

/// Runs the source until it ends by itself, or has no more steps, and for 50 ms at least.
fn run<const N: usize>(source: MadeUp, sinks: [Counting; N]) -> Ran {
    let calls: Vec<_> = sinks.iter().map(|sink| Rc::clone(&sink.calls)).collect();
    let mut sink = Several(sinks.into_iter().map(|sink| Box::new(sink) as Box<dyn Sink>).collect());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let is_drained = Rc::clone(&source.is_drained);
    let mut pipeline = Pipeline::begin(Box::new(source), &mut sink, &made_up::header(), Ending::default()).unwrap();
    let end = runtime.block_on(async {
        let clock = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            while !is_drained.get() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        pipeline.run(clock, || false).await
    });
    let summary = pipeline.finish();
    Ran {
        end,
        summary,
        calls: calls.iter().map(|calls| calls.borrow().clone()).collect(),
    }
}

fn failing(after: u64, kind: io::ErrorKind) -> Counting {
    Counting {
        fails: Some((after, kind)),
        ..Counting::default()
    }
}

fn begun_and_finished_once(calls: &Calls) -> bool {
    (calls.begun, calls.finished.len(), calls.abandoned) == (1, 1, 0)
}

#[test]
fn a_run_feeds_every_sink_until_it_is_asked_to_end() {
    let source = MadeUp {
        late: 4,
        ..MadeUp::new([Step::Moves(2), Step::Loses(3), Step::Moves(1)])
    };
    let ran = run(source, [Counting::default(), Counting::default()]);
    assert_eq!(ran.end.unwrap(), End::Asked);
    let summary = ran.summary.unwrap();
    // Events that arrive after the stop are in the rows and sums, too.
    assert_eq!((summary.totals.events, summary.books.lost.undecoded), (7, 3));
    assert_eq!((summary.books.whole.kernel, summary.books.whole.moved), (Some(3), 3));
    // It is in no reading.
    assert_eq!((summary.books.unbooked, summary.books.proven()), (4, false));
    let expected = Calls {
        begun: 1,
        events: 7,
        abandoned: 0,
        finished: vec![(7, 3)],
    };
    assert_eq!(ran.calls, [expected.clone(), expected]);
}

#[test]
fn calls_that_do_not_end_are_waited_for_and_told_apart() {
    let source = |under_way| MadeUp {
        under_way,
        ..MadeUp::new([Step::Moves(2)])
    };
    let finished = |under_way| {
        let books = run(source(under_way), [Counting::default()]).summary.unwrap().books;
        (books.unbooked, books.balanced(), books.proven())
    };
    assert_eq!(finished(0), (0, true, true));
    let begun = Instant::now();
    assert_eq!(finished(5), (5, true, false));
    assert!(begun.elapsed() >= PATIENCE);
}

#[test]
fn a_run_ends_with_its_targets() {
    let source = MadeUp::new([Step::Moves(1), Step::TargetsEnd, Step::Moves(1)]);
    let ran = run(source, [Counting::default()]);
    assert_eq!(ran.end.unwrap(), End::TargetsGone);
    assert!(begun_and_finished_once(&ran.calls[0]) && ran.calls[0].events == 1);
}

#[test]
fn a_sink_that_fails_ends_the_run_and_all_are_finished() {
    let ends = [
        (io::ErrorKind::BrokenPipe, Some(End::BrokenPipe)),
        (io::ErrorKind::FileTooLarge, Some(End::Full)),
        (io::ErrorKind::StorageFull, None),
    ];
    for (kind, expected) in ends {
        let source = MadeUp {
            late: 1,
            ..MadeUp::new([Step::Moves(2), Step::Moves(2)])
        };
        let ran = run(source, [Counting::default(), failing(2, kind), Counting::default()]);
        assert_eq!(ran.end.ok(), expected);
        // Events that arrive late are not written, which is no failure of an output that is full.
        let failure = (kind != io::ErrorKind::FileTooLarge).then_some(kind);
        assert_eq!(ran.summary.err().map(|error| error.kind()), failure);
        assert!(ran.calls.iter().all(begun_and_finished_once), "{:?}", ran.calls);
    }
}

#[test]
fn a_sink_that_cannot_be_finished_keeps_no_other_from_it() {
    let cannot = Counting {
        fails_at_end: true,
        ..Counting::default()
    };
    let ran = run(MadeUp::new([Step::Moves(1)]), [cannot, Counting::default()]);
    assert_eq!(ran.summary.unwrap_err().to_string(), "the sink fails");
    assert!(ran.calls.iter().all(begun_and_finished_once));
}

#[test]
fn a_source_that_fails_ends_the_run_and_all_are_finished() {
    let ran = run(
        MadeUp::new([Step::Moves(1), Step::Fails]),
        [Counting::default(), Counting::default()],
    );
    assert_eq!(ran.end.unwrap_err().to_string(), "the source fails");
    assert!(ran.calls.iter().all(begun_and_finished_once));
}

#[test]
fn books_that_cannot_be_read_at_the_end_are_an_error_and_all_sinks_are_finished() {
    let calls = Rc::<RefCell<Calls>>::default();
    let mut sink = Counting {
        calls: Rc::clone(&calls),
        ..Counting::default()
    };
    let mut pipeline = Pipeline::begin(
        Box::<MadeUp>::default(),
        &mut sink,
        &made_up::header(),
        Ending::default(),
    )
    .unwrap();
    pipeline.source = Box::new(MadeUp {
        ending: pipeline.ending.clone(),
        no_counters: true,
        state: State::Begun,
        ..MadeUp::default()
    });
    assert_eq!(pipeline.finish().unwrap_err().to_string(), "no counters");
    assert!(begun_and_finished_once(&calls.borrow()));
}
