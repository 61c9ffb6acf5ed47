//! When each thread worked on what during a run.

use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's work on one phase of a step. The time between a thread's spans is spent waiting for the other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which step.
    pub step: usize,
    /// Which thread.
    pub thread: usize,
    /// When it began, in nanoseconds since the run did.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
}

/// The time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime {
    /// From the end of the step before it to its own end, in nanoseconds. So the steps' times add up to the time from the first
    /// thread's begin to the last one's end.
    pub wall_ns: u64,
    /// The time its threads worked, together.
    pub busy_ns: u64,
}

impl StepTime {
    /// The mean part of that time which each of `threads` threads waited for others; from 0 to 1.
    pub fn wait(&self, threads: usize) -> f64 {
        let all = self.wall_ns as f64 * threads as f64;
        if all > 0.0 { (1.0 - self.busy_ns as f64 / all).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// What each thread did during a run; empty until a run is asked to fill it. Kept from run to run it does not allocate.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    threads: usize,
    /// The step of each phase.
    steps: Vec<usize>,
    /// Begin and end of each thread's work, phase by phase; an end of 0 where it had none.
    marks: Vec<(u64, u64)>,
}

impl Timeline {
    pub(super) fn fill<'a>(
        &mut self,
        phases: &[(usize, usize)],
        threads: impl Iterator<Item = &'a Marks> + Clone,
    ) {
        self.threads = threads.clone().count();
        self.steps.clear();
        self.steps.extend(phases.iter().map(|&(step, _)| step));
        self.marks.clear();
        for phase in 0..phases.len() {
            self.marks.extend(threads.clone().map(|marks| marks.get(phase)));
        }
    }

    /// How many threads took part.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The work of all threads, in the order of phases, then of threads.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let phases = self.steps.iter().zip(self.marks.chunks(self.threads.max(1)));
        phases.flat_map(|(&step, marks)| {
            let worked = marks.iter().enumerate().filter(|(_, (_, end))| *end > 0);
            worked.map(move |(thread, &(begin_ns, end_ns))| Span { step, thread, begin_ns, end_ns })
        })
    }

    /// The time of each of `steps` steps.
    pub fn step_times(&self, steps: usize) -> Vec<StepTime> {
        let mut times = vec![StepTime::default(); steps];
        let mut before = self.spans().map(|span| span.begin_ns).min().unwrap_or(0);
        for (&step, marks) in self.steps.iter().zip(self.marks.chunks(self.threads.max(1))) {
            let end = marks.iter().map(|&(_, end)| end).fold(before, u64::max);
            let Some(time) = times.get_mut(step) else { continue };
            time.wall_ns += end - before;
            time.busy_ns += marks.iter().map(|&(begin, end)| end.saturating_sub(begin)).sum::<u64>();
            before = end;
        }
        times
    }
}

/// A thread's begins and ends, by phase.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<[AtomicU64; 2]>);

impl Marks {
    /// Forgets all and makes room for `phases`.
    pub(super) fn reset(&mut self, phases: usize) {
        self.0.resize_with(phases, Default::default);
        self.0.iter_mut().for_each(|mark| *mark = Default::default());
    }

    /// Notes work on a phase; called by the thread whose marks they are.
    pub(super) fn set(&self, phase: usize, begin_ns: u64, end_ns: u64) {
        if let Some([begin, end]) = self.0.get(phase) {
            begin.store(begin_ns, Ordering::Relaxed);
            end.store(end_ns.max(1), Ordering::Relaxed);
        }
    }

    fn get(&self, phase: usize) -> (u64, u64) {
        let [begin, end] = &self.0[phase];
        (begin.load(Ordering::Relaxed), end.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_what_threads_do_not_work() {
        // Two phases of step 0, the second on thread 1 alone; one of step 1, of which thread 0 does most.
        let mut threads = [Marks::default(), Marks::default()];
        threads.iter_mut().for_each(|marks| marks.reset(3));
        threads[0].set(0, 10, 110);
        threads[1].set(0, 20, 60);
        threads[1].set(1, 115, 160);
        threads[0].set(2, 160, 260);
        threads[1].set(2, 160, 180);
        let mut timeline = Timeline::default();
        timeline.fill(&[(0, 0), (0, 1), (1, 0)], threads.iter());
        assert_eq!(timeline.threads(), 2);
        assert_eq!(timeline.spans().count(), 5);
        let times = timeline.step_times(2);
        assert_eq!(times[0], StepTime { wall_ns: 150, busy_ns: 185 });
        assert_eq!(times[1], StepTime { wall_ns: 100, busy_ns: 120 });
        assert!((times[1].wait(2) - 0.4).abs() < 1e-12);
        assert_eq!(StepTime::default().wait(2), 0.0);
    }
}
