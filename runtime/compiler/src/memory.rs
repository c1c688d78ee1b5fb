//! Where each buffer lies in the arena.
//!
//! Placing buffers with lifetimes in the least memory is NP-hard (Dynamic Storage Allocation, Garey and Johnson SR2).
//! This takes the greedy placements of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference"
//! (2020), in several orders, and improves the best one by swapping buffers in its order, until the lower bound is met
//! or a fixed amount of work is spent. The work is counted, not timed, so that the result is the same on every machine.

/// Bytes that are needed from one moment to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Length.
    pub bytes: usize,
    /// First moment of use.
    pub first: usize,
    /// Last moment of use.
    pub last: usize,
}

impl Buffer {
    /// Whether both are needed at some moment.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Two buffers that share bytes at one moment, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap(pub usize, pub usize);

/// Offsets of buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Offset of each buffer.
    pub offsets: Vec<usize>,
    /// Bytes of arena.
    pub bytes: usize,
    /// The most that is in use at one moment: no placement needs less.
    pub lower_bound: usize,
}

impl Placement {
    /// How much larger the arena is than the lower bound: 0.05 for 5 %.
    #[must_use]
    pub fn overhead(&self) -> f64 {
        if self.lower_bound == 0 { 0.0 } else { self.bytes as f64 / self.lower_bound as f64 - 1.0 }
    }

    /// Proves that no two buffers share a byte at one moment, and that all lie inside.
    ///
    /// # Errors
    /// Two buffers that overlap, or one, twice, that reaches past the end.
    pub fn check(&self, buffers: &[Buffer]) -> Result<(), Overlap> {
        let end = |i: usize| self.offsets[i] + buffers[i].bytes;
        for (i, a) in buffers.iter().enumerate() {
            if end(i) > self.bytes {
                return Err(Overlap(i, i));
            }
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                if a.meets(b) && self.offsets[i] < end(j) && self.offsets[j] < end(i) {
                    return Err(Overlap(i, j));
                }
            }
        }
        Ok(())
    }
}

/// Comparisons that the search may make.
const WORK: usize = 40_000_000;

/// How a gap is chosen.
#[derive(Clone, Copy)]
enum Fit {
    /// The lowest that is large enough.
    First,
    /// The smallest that is large enough.
    Best,
}

/// Greedy placement, buffer after buffer.
struct Greedy {
    bytes: Vec<usize>,
    meets: Vec<Vec<usize>>,
}

impl Greedy {
    fn place(&self, order: &[usize], fit: Fit) -> (usize, Vec<usize>) {
        let mut offsets = vec![usize::MAX; self.bytes.len()];
        let mut total = 0;
        let mut busy: Vec<(usize, usize)> = Vec::new();
        for &i in order {
            busy.clear();
            let placed = self.meets[i].iter().filter(|&&j| offsets[j] != usize::MAX);
            busy.extend(placed.map(|&j| (offsets[j], offsets[j] + self.bytes[j])));
            busy.sort_unstable();
            let (mut at, mut best) = (0, None);
            for &(start, end) in &busy {
                if start >= at + self.bytes[i] {
                    let gap = start - at;
                    match fit {
                        Fit::First => {
                            best = Some((gap, at));
                            break;
                        }
                        Fit::Best if best.is_none_or(|(g, _)| gap < g) => best = Some((gap, at)),
                        Fit::Best => {}
                    }
                }
                at = at.max(end);
            }
            offsets[i] = best.map_or(at, |(_, at)| at);
            total = total.max(offsets[i] + self.bytes[i]);
        }
        (total, offsets)
    }
}

/// Places buffers at multiples of `align`, a power of two.
#[must_use]
pub fn place(buffers: &[Buffer], align: usize) -> Placement {
    let n = buffers.len();
    let bytes: Vec<usize> = buffers.iter().map(|b| b.bytes.next_multiple_of(align)).collect();
    // The most is in use where some buffer begins.
    let live = |at: usize| {
        let alive = buffers.iter().zip(&bytes).filter(move |(b, _)| b.first <= at && at <= b.last);
        alive.map(|(_, &bytes)| bytes).sum::<usize>()
    };
    let pressure: Vec<usize> = buffers.iter().map(|b| live(b.first)).collect();
    let lower_bound = pressure.iter().copied().max().unwrap_or(0);
    let meets = |i: usize| (0..n).filter(|&j| j != i && buffers[i].meets(&buffers[j])).collect();
    let greedy = Greedy { meets: (0..n).map(meets).collect(), bytes };

    let span = |i: usize| buffers[i].last - buffers[i].first + 1;
    let size = |i: usize| greedy.bytes[i];
    // Greatest first; ties by index, for the same result everywhere.
    let sorted = |key: &dyn Fn(usize) -> (usize, usize)| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(key(i)), i));
        order
    };
    let orders = [
        sorted(&|i| (size(i), span(i))),
        sorted(&|i| (size(i).saturating_mul(span(i)), size(i))),
        sorted(&|i| (span(i), size(i))),
        sorted(&|i| (pressure[i], size(i))),
        sorted(&|i| (usize::MAX - buffers[i].first, size(i))),
        sorted(&|i| (buffers[i].last, size(i))),
    ];
    let mut best = (usize::MAX, Vec::new(), Vec::new(), Fit::First);
    for order in orders {
        for fit in [Fit::First, Fit::Best] {
            let (total, offsets) = greedy.place(&order, fit);
            if total < best.0 {
                best = (total, offsets, order.clone(), fit);
            }
        }
    }
    let each = greedy.meets.iter().map(Vec::len).sum::<usize>() + n;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut order = best.2.clone();
    for _ in 0..(WORK / each.max(1)).min(20_000) {
        if best.0 <= lower_bound || n < 2 {
            break;
        }
        let (from, to) = (random(n), random(n));
        let moved = order.remove(from);
        order.insert(to, moved);
        let (total, offsets) = greedy.place(&order, best.3);
        if total <= best.0 {
            best = (total, offsets, order.clone(), best.3);
        } else {
            order.clone_from(&best.2);
        }
    }
    if n == 0 {
        return Placement { offsets: Vec::new(), bytes: 0, lower_bound: 0 };
    }
    Placement { offsets: best.1, bytes: best.0, lower_bound }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buffer(bytes: usize, first: usize, last: usize) -> Buffer {
        Buffer { bytes, first, last }
    }

    #[test]
    fn nothing_takes_nothing() {
        assert_eq!(place(&[], 16), Placement { offsets: vec![], bytes: 0, lower_bound: 0 });
    }

    #[test]
    fn buffers_of_different_moments_share_bytes() {
        let buffers = [buffer(100, 0, 1), buffer(60, 1, 2), buffer(100, 2, 3)];
        let placement = place(&buffers, 16);
        assert_eq!((placement.bytes, placement.lower_bound), (176, 176));
        assert_eq!(placement.check(&buffers), Ok(()));
    }

    #[test]
    fn search_meets_the_bound_where_greedy_orders_do_not() {
        // A known bad case of largest-first: the middle one keeps the two large ones apart.
        let buffers = [
            buffer(64, 0, 2),
            buffer(48, 2, 4),
            buffer(64, 4, 6),
            buffer(32, 1, 5),
            buffer(16, 0, 1),
            buffer(16, 5, 6),
        ];
        let placement = place(&buffers, 16);
        assert_eq!(placement.bytes, placement.lower_bound);
        assert_eq!(placement.check(&buffers), Ok(()));
    }

    #[test]
    fn check_finds_an_overlap() {
        let buffers = [buffer(16, 0, 1), buffer(16, 1, 2)];
        let wrong = Placement { offsets: vec![0, 8], bytes: 32, lower_bound: 32 };
        assert_eq!(wrong.check(&buffers), Err(Overlap(0, 1)));
        let outside = Placement { offsets: vec![0, 32], bytes: 32, lower_bound: 32 };
        assert_eq!(outside.check(&buffers), Err(Overlap(1, 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn placements_are_sound_aligned_and_the_same_again(
            spans in proptest::collection::vec((0usize..5000, 0usize..40, 0usize..12), 0..60)
        ) {
            let buffers: Vec<Buffer> = spans.iter().map(|&(b, f, l)| buffer(b, f, f + l)).collect();
            let placement = place(&buffers, 16);
            prop_assert_eq!(placement.check(&buffers), Ok(()));
            prop_assert!(placement.bytes >= placement.lower_bound);
            prop_assert!(placement.offsets.iter().all(|o| o.is_multiple_of(16)));
            prop_assert_eq!(place(&buffers, 16), placement);
        }
    }
}
