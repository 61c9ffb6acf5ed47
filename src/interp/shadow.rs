//! What is known of each element beside its value: whether it was written, and by whom it was touched last.
//!
//! Time is a counter that advances with each iteration of a parallel loop and each barrier. While such a loop runs, what
//! happened between its start and the start of the present iteration happened in another iteration. What happened since the
//! last barrier happened in another invocation when the coordinates differ.

use crate::loopir::Axis;

/// One access.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    /// 0 is before everything.
    time: u64,
    /// One more than the coordinate of the invocation; 0 outside of the loops of that axis.
    lane: [u32; 3],
    pub(super) block: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Touches {
    write: Stamp,
    read: Stamp,
    /// The last read from elsewhere than `read`.
    other_read: Stamp,
}

/// The shadow of a slot; empty vectors where nothing is checked.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    written: Vec<bool>,
    touches: Vec<Touches>,
}

/// What an access must not do.
#[derive(Debug)]
pub(super) enum Conflict {
    Uninitialised,
    /// With this access, in iterations of the parallel loop at this depth, or of invocations.
    Race(Stamp, Option<usize>),
}

/// A parallel loop that runs.
#[derive(Debug)]
struct Fork {
    start: u64,
    iteration: u64,
}

/// Where the run is.
#[derive(Debug)]
pub(super) struct Clock {
    now: u64,
    forks: Vec<Fork>,
    phase: u64,
    lane: [u32; 3],
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { now: 1, forks: vec![], phase: 1, lane: [0; 3] }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn barrier(&mut self) {
        self.phase = self.tick();
    }

    pub(super) fn enter_parallel(&mut self) {
        let start = self.tick();
        self.forks.push(Fork { start, iteration: start });
    }

    pub(super) fn iterate_parallel(&mut self) {
        let now = self.tick();
        self.phase = now;
        if let Some(fork) = self.forks.last_mut() {
            fork.iteration = now;
        }
    }

    pub(super) fn leave_parallel(&mut self) {
        self.forks.pop();
        self.barrier();
    }

    pub(super) fn set_lane(&mut self, axis: Axis, coordinate: Option<u64>) {
        let place = match axis {
            Axis::X => 0,
            Axis::Y => 1,
            Axis::Z => 2,
        };
        self.lane[place] = coordinate.map_or(0, |coordinate| coordinate as u32 + 1);
    }

    fn stamp(&self, block: usize) -> Stamp {
        Stamp { time: self.now, lane: self.lane, block: block as u32 }
    }

    fn race(&self, earlier: Stamp) -> Option<Conflict> {
        let apart = |fork: &Fork| fork.start <= earlier.time && earlier.time < fork.iteration;
        if let Some(depth) = self.forks.iter().position(apart) {
            return Some(Conflict::Race(earlier, Some(depth)));
        }
        (earlier.time >= self.phase && lanes_differ(earlier.lane, self.lane))
            .then_some(Conflict::Race(earlier, None))
    }

    /// Whether nothing lies between that could be a race.
    fn same_place(&self, earlier: Stamp) -> bool {
        let iteration = self.forks.last().map_or(0, |fork| fork.iteration);
        earlier.time >= iteration.max(self.phase) && earlier.lane == self.lane
    }
}

fn lanes_differ(a: [u32; 3], b: [u32; 3]) -> bool {
    a.iter().zip(b).any(|(&a, b)| a != 0 && b != 0 && a != b)
}

impl Shadow {
    pub(super) fn new(len: usize, initialised: bool, races: bool) -> Shadow {
        Shadow {
            written: if initialised { vec![false; len] } else { vec![] },
            touches: if races { vec![Touches::default(); len] } else { vec![] },
        }
    }

    pub(super) fn read(&mut self, i: usize, clock: &Clock, block: usize) -> Option<Conflict> {
        if let Some(touches) = self.touches.get_mut(i) {
            let conflict = clock.race(touches.write);
            if conflict.is_some() {
                return conflict;
            }
            if !clock.same_place(touches.read) {
                touches.other_read = touches.read;
            }
            touches.read = clock.stamp(block);
        }
        self.written.get(i).is_some_and(|written| !written).then_some(Conflict::Uninitialised)
    }

    pub(super) fn write(&mut self, i: usize, clock: &Clock, block: usize) -> Option<Conflict> {
        if let Some(written) = self.written.get_mut(i) {
            *written = true;
        }
        let touches = self.touches.get_mut(i)?;
        let earlier = [touches.write, touches.read, touches.other_read];
        touches.write = clock.stamp(block);
        earlier.into_iter().find_map(|earlier| clock.race(earlier))
    }

    /// Elements from `start` become undefined and untouched.
    pub(super) fn reset(&mut self, start: usize, len: usize) {
        if let Some(written) = self.written.get_mut(start..start + len) {
            written.fill(false);
        }
        if let Some(touches) = self.touches.get_mut(start..start + len) {
            touches.fill(Touches::default());
        }
    }

    /// The first element that was not written.
    pub(super) fn hole(&self) -> Option<usize> {
        self.written.iter().position(|written| !written)
    }
}
