//! Which windows of a device are in, so that none counts twice.

use std::collections::BTreeMap;

use crate::report::{BOOT_MASK, Profile};
use crate::window::Head;

/// What a report is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It has windows that were not in; they are now.
    New,
    /// All its windows were in already.
    Duplicate,
    /// Some of its windows were in and some not. Devices do not send such; it is not counted, and nothing changes.
    Overlap,
}

/// The windows of one device, by its starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Ranges of numbers, inclusive, that do not touch: first to last.
    starts: BTreeMap<u32, BTreeMap<u32, u32>>,
}

impl Ledger {
    /// One that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the windows of a report, whose start is known in full.
    pub fn enter(&mut self, boot: u32, head: &Head) -> Arrival {
        let first = head.seq.saturating_sub(head.span.saturating_sub(1));
        self.enter_range(boot, first, head.seq)
    }

    /// Notes windows `first` to `last` of a start.
    pub fn enter_range(&mut self, boot: u32, first: u32, last: u32) -> Arrival {
        let ranges = self.starts.entry(boot).or_default();
        let before = ranges.range(..=last).next_back().map(|(f, l)| (*f, *l));
        if let Some((f, l)) = before
            && l >= first
        {
            return if f <= first && l >= last { Arrival::Duplicate } else { Arrival::Overlap };
        }
        let mut merged = (first, last);
        if let Some((f, _)) = before.filter(|(_, l)| l.checked_add(1) == Some(first)) {
            ranges.remove(&f);
            merged.0 = f;
        }
        if let Some(l) = last.checked_add(1).and_then(|next| ranges.remove(&next)) {
            merged.1 = l;
        }
        ranges.insert(merged.0, merged.1);
        Arrival::New
    }

    /// The start that a report means: short ones have only its lowest four bits. It is the latest known start with these
    /// bits, unless a later one is nearer to the latest of all.
    #[must_use]
    pub fn boot(&self, profile: Profile, boot: u32) -> u32 {
        let Some(latest) = self.starts.keys().next_back().copied().filter(|_| profile != Profile::Full) else {
            return boot;
        };
        let ahead = boot.wrapping_sub(latest) & BOOT_MASK;
        // Up to half of the range it is a start that is not known yet, else an earlier one.
        if ahead <= BOOT_MASK / 2 { latest.saturating_add(ahead) } else { latest.saturating_sub(BOOT_MASK + 1 - ahead) }
    }

    /// Numbers that are missing between the first and the last of each start.
    pub fn gaps(&self) -> impl Iterator<Item = (u32, core::ops::Range<u32>)> + '_ {
        self.starts.iter().flat_map(|(boot, ranges)| {
            let ends = ranges.values().map(|l| l.saturating_add(1));
            // Numbers begin at 0 with every start.
            let ends = core::iter::once(0).chain(ends);
            ends.zip(ranges.keys()).filter(|(end, first)| end < *first).map(move |(end, first)| (*boot, end..*first))
        })
    }

    /// All that it knows: starts with their ranges of windows, first and last.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        self.starts.iter().flat_map(|(boot, ranges)| ranges.iter().map(|(f, l)| (*boot, *f, *l)))
    }

    /// Forgets starts before this one.
    pub fn forget_before(&mut self, boot: u32) {
        self.starts = self.starts.split_off(&boot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(seq: u32, span: u32) -> Head {
        Head { seq, span, ..Head::default() }
    }

    #[test]
    fn starts_of_short_reports_are_found() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.boot(Profile::Mini, 5), 5);
        ledger.enter(0x1234, &head(0, 1));
        assert_eq!(ledger.boot(Profile::Full, 9), 9);
        for boot in 0x122Du32..0x123C {
            assert_eq!(ledger.boot(Profile::Heartbeat, boot & 15), boot, "{boot:x}");
        }
    }

    #[test]
    fn gaps_are_told() {
        let mut ledger = Ledger::new();
        for (seq, span) in [(2, 2), (7, 1), (10, 2)] {
            assert_eq!(ledger.enter(4, &head(seq, span)), Arrival::New);
        }
        assert_eq!(ledger.enter(4, &head(10, 3)), Arrival::Overlap);
        assert_eq!(ledger.enter(4, &head(2, 1)), Arrival::Duplicate);
        let gaps: Vec<_> = ledger.gaps().collect();
        assert_eq!(gaps, [(4, 0..1), (4, 3..7), (4, 8..9)]);
    }

    proptest! {
        /// In whatever order, and however often, each window counts once.
        #[test]
        fn each_window_counts_once(spans in proptest::collection::vec(1u32..5, 1..30), order in any::<u64>()) {
            let mut reports = Vec::new();
            let mut seq = 0;
            for span in spans {
                reports.push(head(seq + span - 1, span));
                seq += span;
            }
            let mut queue: Vec<Head> = reports.iter().chain(&reports).copied().collect();
            let mut state = order | 1;
            let mut counted = 0;
            let mut ledger = Ledger::new();
            while !queue.is_empty() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let next = queue.swap_remove(state as usize % queue.len());
                match ledger.enter(1, &next) {
                    Arrival::New => counted += next.span,
                    Arrival::Duplicate => {}
                    Arrival::Overlap => prop_assert!(false, "{next:?}"),
                }
            }
            prop_assert_eq!(counted, seq);
            prop_assert_eq!(ledger.gaps().count(), 0);
            prop_assert_eq!(ledger.ranges().collect::<Vec<_>>(), [(1, 0, seq - 1)]);
        }
    }
}
