//! What a machine was measured to do at best, and the least time it needs for some work.

/// The roofs of the roofline model (Williams, Waterman, Patterson 2009), measured: one of arithmetic, and one of memory for each
/// level that data may lie in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeasuredRates {
    /// Floating-point operations on f32 per second; a fused multiply-add counts 2.
    pub flop_per_second: f64,
    /// Reads again and again of data of a size, smallest first.
    pub reads: Vec<ReadRate>,
    /// Nanoseconds until a thread sees what another has written; `None` where no threads share work.
    pub hand_over_ns: Option<f64>,
}

/// How fast data of some size is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadRate {
    /// The size of the data.
    pub bytes: u64,
    /// Bytes read per second.
    pub bytes_per_second: f64,
}

/// What a step must do, whatever its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Floating-point operations.
    pub flop: u64,
    /// Bytes of constants it touches: they were read one inference ago.
    pub constant_bytes: u64,
    /// Bytes of inputs and outputs it touches: they may lie in the nearest cache that holds them.
    pub value_bytes: u64,
}

/// The least time for a [`Demand`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Nanoseconds.
    pub ns: f64,
    /// Whether memory sets it, and not arithmetic.
    pub by_memory: bool,
}

impl Demand {
    /// All bytes it touches.
    pub fn bytes(&self) -> u64 {
        self.constant_bytes + self.value_bytes
    }
}

impl MeasuredRates {
    /// How fast data of `bytes` is read: at the rate of the largest size measured that is not larger, or of any size above that:
    /// less data is never slower, but for the start of what reads it.
    pub fn bytes_per_second(&self, bytes: u64) -> f64 {
        let above = self.reads.partition_point(|read| read.bytes <= bytes);
        let rates = self.reads[above.saturating_sub(1)..].iter().map(|read| read.bytes_per_second);
        rates.fold(0.0, f64::max)
    }

    /// The least time for `demand` in an inference that touches `working_set_bytes` in all: constants come from where that much
    /// data lies, other values from where those of the step lie.
    pub fn limit(&self, demand: Demand, working_set_bytes: u64) -> Limit {
        let time = |amount: u64, rate: f64| if amount == 0 { 0.0 } else { 1e9 * amount as f64 / rate };
        let arithmetic = time(demand.flop, self.flop_per_second);
        let memory = time(demand.constant_bytes, self.bytes_per_second(working_set_bytes))
            + time(demand.value_bytes, self.bytes_per_second(demand.value_bytes));
        Limit { ns: arithmetic.max(memory), by_memory: memory > arithmetic }
    }

    /// Of each rate the higher one: what a machine was measured to do, it can do.
    pub fn or_faster(self, other: &MeasuredRates) -> MeasuredRates {
        let reads = self.reads.iter().map(|read| {
            let again = other.reads.iter().find(|again| again.bytes == read.bytes);
            let rate = again.map_or(0.0, |again| again.bytes_per_second).max(read.bytes_per_second);
            ReadRate { bytes: read.bytes, bytes_per_second: rate }
        });
        MeasuredRates {
            flop_per_second: self.flop_per_second.max(other.flop_per_second),
            reads: reads.collect(),
            hand_over_ns: self.hand_over_ns.into_iter().chain(other.hand_over_ns).reduce(f64::min),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> MeasuredRates {
        let read = |bytes, bytes_per_second| ReadRate { bytes, bytes_per_second };
        let reads = vec![read(1000, 1e9), read(1_000_000, 1e8)];
        MeasuredRates { flop_per_second: 1e9, reads, hand_over_ns: None }
    }

    #[test]
    fn sizes_between_have_the_rate_of_the_smaller() {
        let rates = rates();
        assert_eq!(rates.bytes_per_second(10), 1e9);
        assert_eq!(rates.bytes_per_second(999_999), 1e9);
        assert_eq!(rates.bytes_per_second(u64::MAX), 1e8);
        let mut slow_start = rates.clone();
        slow_start.reads[0].bytes_per_second = 1.0;
        assert_eq!(slow_start.bytes_per_second(10), 1e8);
    }

    #[test]
    fn the_limit_is_the_longer_of_both() {
        let demand = Demand { flop: 500, constant_bytes: 100, value_bytes: 100 };
        assert_eq!(rates().limit(demand, 200), Limit { ns: 500.0, by_memory: false });
        // Constants come from memory when the whole inference does not fit.
        assert_eq!(rates().limit(demand, 2_000_000), Limit { ns: 1100.0, by_memory: true });
        assert_eq!(demand.bytes(), 200);
        assert_eq!(MeasuredRates::default().limit(Demand::default(), 0).ns, 0.0);
    }

    #[test]
    fn the_higher_rate_counts() {
        let mut again = rates();
        (again.flop_per_second, again.reads[1].bytes_per_second) = (2e9, 1e7);
        again.hand_over_ns = Some(50.0);
        let both = rates().or_faster(&again);
        assert_eq!(
            both.or_faster(&MeasuredRates { hand_over_ns: Some(60.0), ..rates() }).hand_over_ns,
            Some(50.0)
        );
        let both = rates().or_faster(&again);
        assert_eq!((both.flop_per_second, both.bytes_per_second(u64::MAX)), (2e9, 1e8));
    }
}
