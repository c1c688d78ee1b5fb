//! Numbers modulo the order of the base point.

use super::subtract;

/// The order, 2^252 + 27742317777372353535851937790883648493.
const ORDER: [u32; 8] =
    [0x5CF5_D3ED, 0x5812_631A, 0xA2F7_9CD6, 0x14DE_F9DE, 0x0000_0000, 0x0000_0000, 0x0000_0000, 0x1000_0000];

/// Whether a number is less than the order.
pub(super) fn is_canonical(number: &[u32; 8]) -> bool {
    number.iter().rev().lt(ORDER.iter().rev())
}

/// A hash, whose bytes are a number with the least significant first, modulo the order: one bit after the other.
pub(super) fn reduce(hash: &[u64; 8]) -> [u32; 8] {
    let mut rest = [0u32; 8];
    for word in hash.iter().rev() {
        let mut word = word.swap_bytes();
        for _ in 0..64 {
            let mut carry = u32::from(word >> 63 == 1);
            word <<= 1;
            for place in &mut rest {
                (*place, carry) = (*place << 1 | carry, *place >> 31);
            }
            subtract(&mut rest, &ORDER);
        }
    }
    rest
}
