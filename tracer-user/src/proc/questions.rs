//! Asks processes about their memory in a thread, with a deadline: whoever holds a process's mmap_lock holds up the
//! answers, perhaps for ever.
//! Input: /proc/PID/maps and /proc/PID/pagemap.

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    escape::Printable,
    proc::{
        maps::AddressSpace,
        pagemap::{LookupError, Pagemap},
        process,
    },
    units::{Tgid, VirtAddr},
};

/// The time that the questions of a batch may wait for answers together, unless [`Questions::wait`] says otherwise. A
/// process that moves its own memory holds its mmap_lock for as long as that takes (mbind, mm/mempolicy.c).
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The time that a question may wait when the batch has used up its patience, or the process did not answer before: most
/// questions are answered within 100 us.
const LEAST_PATIENCE: Duration = Duration::from_millis(25);
/// Patience is measured anew after this time of waiting.
const STEP: Duration = Duration::from_millis(10);
/// The time for which a process is not asked after it did not answer; it doubles each time.
const FIRST_SILENCE: Duration = Duration::from_secs(1);
/// The longest such time.
const LONGEST_SILENCE: Duration = Duration::from_secs(64);
/// The limit of threads that wait for an answer that nobody waits for any more. Beyond it nothing is asked.
const MAX_HELD_UP: usize = 1024;
/// An answer that came late is of use for this time.
const LATE: Duration = Duration::from_secs(1);
/// The limit of open pagemaps. When it is reached, all are closed.
const MAX_OPEN: usize = 512;

/// Asks processes for their VMAs and page table entries.
pub struct Questions {
    /// The thread that answers; None before the first question, and after one that was not answered in time.
    worker: Option<Worker>,
    /// The processes whose pagemap it may have open.
    open: HashSet<Tgid>,
    /// Threads whose question was not answered in time, with the process; None: it is gone, and so is the question.
    held_up: Vec<(Worker, Option<Tgid>)>,
    silent: HashMap<Tgid, Silence>,
    /// Address spaces that came after their deadline, and when.
    late: HashMap<Tgid, (AddressSpace, Instant)>,
    /// Whether it was reported that nobody is asked any more.
    told: bool,
    /// The time that the questions of a batch may wait together, as things are now.
    patience: Box<dyn Fn() -> Duration>,
    /// The time that they have waited.
    waited: Duration,
    /// Buffers for a question's pages and the words of its answer.
    buffers: (Vec<VirtAddr>, Vec<u64>),
    answer: Answering,
}

/// A process that did not answer once.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// It is not asked before this time.
    until: Instant,
    /// The time for which it is not asked if it does not answer again.
    next: Duration,
    /// Whether a thread still waits for its answer.
    holds_up: bool,
}

enum Question {
    Vmas(Tgid),
    Entries(Tgid, Vec<VirtAddr>, Vec<u64>),
    /// Closes the process's pagemap. There is no answer.
    Forget(Tgid),
}

enum Answer {
    Vmas(io::Result<AddressSpace>),
    /// The pages of the question come back with the words.
    Entries(Vec<VirtAddr>, Vec<u64>, Result<(), LookupError>),
}

type Pagemaps = HashMap<Tgid, Pagemap>;
type Answering = fn(&mut Pagemaps, Question) -> Option<Answer>;

struct Worker {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Worker {
    fn start(answer: Answering) -> io::Result<Self> {
        let (questions, asked) = sync_channel(1);
        let (sender, answers) = sync_channel(1);
        // It ends when its questions do. A thread that the kernel holds up ends with the process: the wait is killable
        // (`mmap_read_lock_killable`, fs/proc/task_mmu.c).
        thread::Builder::new()
            .name("tracer-questions".to_owned())
            .spawn(move || {
                let mut pagemaps = Pagemaps::new();
                for question in asked {
                    if let Some(answer) = answer(&mut pagemaps, question)
                        && sender.send(answer).is_err()
                    {
                        return;
                    }
                }
            })?;
        Ok(Self { questions, answers })
    }
}

impl Default for Questions {
    fn default() -> Self {
        Self::answered_by(answer, PATIENCE)
    }
}

impl Questions {
    fn answered_by(answer: Answering, patience: Duration) -> Self {
        Self {
            worker: None,
            open: HashSet::new(),
            held_up: Vec::new(),
            silent: HashMap::new(),
            late: HashMap::new(),
            told: false,
            patience: Box::new(move || patience),
            waited: Duration::ZERO,
            buffers: (Vec::new(), Vec::new()),
            answer,
        }
    }

    /// Lets the questions of a batch wait for the time that `patience` returns, asked again while they wait.
    pub fn wait(&mut self, patience: impl Fn() -> Duration + 'static) {
        self.patience = Box::new(patience);
    }

    /// Begins a batch of questions, which wait for a limited time together.
    pub fn begin(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// The time that a question to this process may wait now.
    fn patience(&self, tgid: Tgid) -> Duration {
        if self.silent.contains_key(&tgid) {
            return LEAST_PATIENCE;
        }
        (self.patience)().saturating_sub(self.waited).max(LEAST_PATIENCE)
    }

    /// Whether the process is not asked now: it did not answer, or too many others have not.
    #[must_use]
    pub fn is_silent(&self, tgid: Tgid) -> bool {
        let silence = self.silent.get(&tgid);
        silence.is_some_and(|silence| silence.holds_up || Instant::now() < silence.until)
            || self.held_up.len() >= MAX_HELD_UP
    }

    /// Forgets what is known of a process, because it has another address space now, or has ended.
    pub fn forget(&mut self, tgid: Tgid) {
        self.silent.remove(&tgid);
        self.late.remove(&tgid);
        // A late answer must not pass for one of the next process with this number.
        for (_, held) in &mut self.held_up {
            held.take_if(|held| *held == tgid);
        }
        // To wake the worker for each process that ends would cost more than all the rest.
        if self.open.remove(&tgid)
            && let Some(worker) = &self.worker
            && worker.questions.send(Question::Forget(tgid)).is_err()
        {
            self.worker = None;
        }
    }

    /// Forgets what is known of all processes, except which of them are silent.
    pub fn forget_all(&mut self) {
        self.late.clear();
        // It ends, and closes what it has open.
        self.worker = None;
        self.open.clear();
    }

    /// The VMAs of a process. None: it does not answer.
    pub fn vmas(&mut self, tgid: Tgid) -> Option<io::Result<AddressSpace>> {
        self.reclaim();
        if let Some((late, _)) = self.late.remove(&tgid) {
            return Some(Ok(late));
        }
        match self.ask(tgid, Question::Vmas(tgid)) {
            Some(Answer::Vmas(vmas)) => Some(vmas),
            _ => None,
        }
    }

    /// Reads the entries of pages, sorted by address, into `entries`.
    ///
    /// # Errors
    /// The errors of [`Pagemap::open`] and [`Pagemap::lookup`], and [`LookupError::Silent`].
    pub fn entries(&mut self, tgid: Tgid, pages: &[VirtAddr], entries: &mut Vec<u64>) -> Result<(), LookupError> {
        let (mut wanted, words) = mem::take(&mut self.buffers);
        wanted.clear();
        wanted.extend_from_slice(pages);
        self.open.insert(tgid);
        match self.ask(tgid, Question::Entries(tgid, wanted, words)) {
            Some(Answer::Entries(wanted, mut words, result)) => {
                mem::swap(entries, &mut words);
                self.buffers = (wanted, words);
                result
            }
            _ => Err(LookupError::Silent(tgid)),
        }
    }

    fn ask(&mut self, tgid: Tgid, question: Question) -> Option<Answer> {
        self.reclaim();
        if self.is_silent(tgid) {
            return None;
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(self.answer)
                .inspect_err(|error| log::warn!("cannot start a thread that reads /proc: {error}"))
                .ok()?,
        };
        worker.questions.send(question).ok()?;
        let mut waited = Duration::ZERO;
        let answer = loop {
            let begun = Instant::now();
            let answer = worker.answers.recv_timeout(STEP);
            // If tracer itself is woken late, the process has not had the time, either.
            waited += begun.elapsed().min(STEP * 2);
            match answer {
                Err(RecvTimeoutError::Timeout) if waited < self.patience(tgid) => {}
                other => break other,
            }
        };
        self.waited += waited;
        match answer {
            Ok(answer) => {
                self.worker = Some(worker);
                self.trust(tgid);
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.held_up.push((worker, Some(tgid)));
                self.fall_silent(tgid);
                if self.held_up.len() >= MAX_HELD_UP && !self.told {
                    self.told = true;
                    log::warn!("{MAX_HELD_UP} processes do not answer: nobody is asked before one of them does");
                }
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// A process that answers again and again is one like any other.
    fn trust(&mut self, tgid: Tgid) {
        if let Some(silence) = self.silent.get_mut(&tgid) {
            silence.next /= 2;
            if silence.next < FIRST_SILENCE {
                self.silent.remove(&tgid);
            }
        }
    }

    fn fall_silent(&mut self, tgid: Tgid) {
        let before = self.silent.get(&tgid);
        if before.is_none() {
            let name = process::comm(tgid).unwrap_or_default();
            log::warn!(
                "{}[{tgid}] does not answer questions about its memory: it is asked again from time to time, and pages \
                 that may be its own count as not asked",
                Printable(&name)
            );
        }
        let span = before.map_or(FIRST_SILENCE, |silence| silence.next);
        let silence = Silence {
            until: Instant::now() + span,
            next: (span * 2).min(LONGEST_SILENCE),
            holds_up: true,
        };
        self.silent.insert(tgid, silence);
    }

    /// Takes late answers. Their processes can be asked again, by another thread: this one may know pagemaps that were
    /// to be forgotten meanwhile.
    fn reclaim(&mut self) {
        let Self {
            held_up, silent, late, ..
        } = self;
        late.retain(|_, (_, came)| came.elapsed() < LATE);
        let mut at = 0;
        while let Some((held, tgid)) = held_up.get(at) {
            match held.answers.try_recv() {
                Err(TryRecvError::Empty) => at += 1,
                came => {
                    if let Some(silence) = tgid.and_then(|tgid| silent.get_mut(&tgid)) {
                        (silence.until, silence.holds_up) = (Instant::now(), false);
                    }
                    if let (Some(tgid), Ok(Answer::Vmas(Ok(vmas)))) = (tgid, came) {
                        late.insert(*tgid, (vmas, Instant::now()));
                    }
                    drop(held_up.swap_remove(at));
                }
            }
        }
    }
}

/// Answers in the worker's thread.
fn answer(pagemaps: &mut Pagemaps, question: Question) -> Option<Answer> {
    match question {
        Question::Vmas(tgid) => Some(Answer::Vmas(AddressSpace::read(tgid))),
        Question::Entries(tgid, pages, mut words) => {
            let result = entries(pagemaps, tgid, &pages, &mut words);
            Some(Answer::Entries(pages, words, result))
        }
        Question::Forget(tgid) => {
            pagemaps.remove(&tgid);
            None
        }
    }
}

fn entries(pagemaps: &mut Pagemaps, tgid: Tgid, pages: &[VirtAddr], words: &mut Vec<u64>) -> Result<(), LookupError> {
    if pagemaps.len() >= MAX_OPEN && !pagemaps.contains_key(&tgid) {
        pagemaps.clear();
    }
    let pagemap = match pagemaps.remove(&tgid) {
        Some(open) => open,
        None => Pagemap::open(tgid)?,
    };
    let result = pagemap.lookup(pages, words);
    if result.is_ok() {
        pagemaps.insert(tgid, pagemap);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Tgid = Tgid(1);
    const SLOW: Tgid = Tgid(2);

    const PATIENCE: Duration = Duration::from_millis(250);

    /// [`SLOW`] takes longer than a batch waits.
    fn made_up(_: &mut Pagemaps, question: Question) -> Option<Answer> {
        answer_after(PATIENCE * 2, question)
    }

    /// Answers, for [`SLOW`] after that time.
    fn answer_after(time: Duration, question: Question) -> Option<Answer> {
        match question {
            Question::Vmas(SLOW) | Question::Entries(SLOW, ..) => thread::sleep(time),
            _ => {}
        }
        match question {
            Question::Vmas(_) => Some(Answer::Vmas(Ok(AddressSpace::default()))),
            Question::Entries(_, pages, _) => {
                let words = pages.iter().map(|page| page.0).collect();
                Some(Answer::Entries(pages, words, Ok(())))
            }
            Question::Forget(_) => None,
        }
    }

    #[test]
    fn a_process_that_does_not_answer_holds_nobody_up() {
        let mut questions = Questions::answered_by(|_, question| answer_after(PATIENCE * 40, question), PATIENCE);
        let mut words = Vec::new();
        let begun = Instant::now();
        assert!(questions.vmas(SLOW).is_none());
        for page in 0..100 {
            questions.entries(FAST, &[VirtAddr(page)], &mut words).unwrap();
            assert_eq!(words, [page]);
            assert!(questions.vmas(SLOW).is_none(), "it is not asked again");
        }
        assert!(questions.is_silent(SLOW) && !questions.is_silent(FAST));
        assert!(begun.elapsed() < PATIENCE * 20, "{:?}", begun.elapsed());
        let silent = questions.entries(SLOW, &[VirtAddr(0)], &mut words);
        assert!(matches!(silent, Err(LookupError::Silent(SLOW))));
    }

    #[test]
    fn a_late_answer_is_taken_and_ends_the_silence() {
        let mut questions = Questions::answered_by(made_up, PATIENCE);
        assert!(questions.vmas(SLOW).is_none());
        thread::sleep(PATIENCE * 3);
        assert!(questions.vmas(FAST).is_some_and(|vmas| vmas.is_ok()));
        assert!(!questions.is_silent(SLOW) && questions.held_up.is_empty());
        let begun = Instant::now();
        assert!(questions.vmas(SLOW).is_some());
        assert!(begun.elapsed() < PATIENCE, "the answer was there");
        let begun = Instant::now();
        assert!(questions.vmas(SLOW).is_none());
        assert!(begun.elapsed() < PATIENCE, "it is known to be slow");
    }

    #[test]
    fn a_late_answer_is_not_taken_for_one_of_the_next_process_with_that_number() {
        let mut questions = Questions::answered_by(made_up, PATIENCE);
        assert!(questions.vmas(SLOW).is_none());
        questions.forget(SLOW);
        thread::sleep(PATIENCE * 3);
        questions.reclaim();
        assert!(questions.held_up.is_empty() && questions.late.is_empty());
    }

    #[test]
    fn a_silent_process_holds_up_one_thread() {
        let mut questions = Questions::answered_by(|_, question| answer_after(PATIENCE * 40, question), PATIENCE);
        assert!(questions.vmas(SLOW).is_none());
        for _ in 0..3 {
            for silence in questions.silent.values_mut() {
                silence.until = Instant::now();
            }
            assert!(questions.is_silent(SLOW) && questions.vmas(SLOW).is_none());
        }
        assert_eq!(questions.held_up.len(), 1);
    }

    #[test]
    fn many_silent_processes_cost_a_batch_its_patience_once() {
        let never = |_: &mut Pagemaps, _| {
            thread::sleep(PATIENCE * 80);
            None
        };
        let mut questions = Questions::answered_by(never, PATIENCE);
        let begun = Instant::now();
        for tgid in 0..20 {
            assert!(questions.vmas(Tgid(tgid)).is_none());
        }
        assert!(begun.elapsed() < PATIENCE * 12, "{:?}", begun.elapsed());
        assert_eq!(questions.held_up.len(), 20);
    }

    #[test]
    fn patience_may_end_while_a_question_waits() {
        let mut questions = Questions::answered_by(|_, question| answer_after(PATIENCE * 40, question), PATIENCE * 40);
        let begun = Instant::now();
        questions.wait(move || {
            if begun.elapsed() < PATIENCE {
                PATIENCE * 40
            } else {
                Duration::ZERO
            }
        });
        assert!(questions.vmas(SLOW).is_none());
        let took = begun.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 20, "{took:?}");
    }

    #[test]
    fn the_own_process_answers() {
        let mut questions = Questions::default();
        let own = Tgid(std::process::id());
        let vmas = questions.vmas(own).unwrap().unwrap();
        let first = vmas.iter().next().unwrap().start;
        let mut words = Vec::new();
        questions.entries(own, &[first], &mut words).unwrap();
        assert_eq!(words.len(), 1);
        questions.forget(own);
        questions.entries(own, &[first], &mut words).unwrap();
    }
}
