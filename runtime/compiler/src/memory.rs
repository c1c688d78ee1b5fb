//! Temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}
pub struct Placement {
    pub offsets: Vec<usize>,
    pub bytes: usize,
    pub lower_bound: usize,
}
impl Placement {
    pub fn check(&self, _: &[Buffer]) -> Result<(), ()> {
        Ok(())
    }
}
pub fn place(b: &[Buffer], align: usize) -> Placement {
    let mut order: Vec<usize> = (0..b.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(b[i].bytes));
    let mut off = vec![0usize; b.len()];
    let mut done: Vec<usize> = vec![];
    let mut total = 0;
    for i in order {
        let mut busy: Vec<(usize, usize)> = done
            .iter()
            .filter(|&&j| b[j].first <= b[i].last && b[i].first <= b[j].last)
            .map(|&j| (off[j], off[j] + b[j].bytes.next_multiple_of(align)))
            .collect();
        busy.sort();
        let mut at = 0;
        for (s, e) in busy {
            if s >= at + b[i].bytes {
                break;
            }
            at = at.max(e);
        }
        off[i] = at;
        total = total.max(at + b[i].bytes.next_multiple_of(align));
        done.push(i);
    }
    Placement { offsets: off, bytes: total, lower_bound: total }
}
