// Where things lie in the models' flash: offsets and lengths in bytes. The production line (tests/src/board.rs) reads
// this file too.

/// Bytes that are erased together.
pub const SECTOR: u32 = 4096;
/// Bytes that are programmed together.
pub const UNIT: u32 = 8;
/// What the device was made with.
pub const FACTORY: u32 = 0;
/// Images that stand for what a camera sees, each with its digit behind it.
pub const IMAGES: u32 = SECTOR;
/// Bytes from one image to the next.
pub const IMAGE_STRIDE: u32 = 1024;
/// Pixels of an image, one byte each.
pub const PIXELS: usize = 28 * 28;
/// Number of images.
pub const IMAGE_COUNT: u32 = 16;
/// State records, journal, slots.
pub const STORAGE: u32 = IMAGES + IMAGE_COUNT * IMAGE_STRIDE;
/// Bytes of a slot.
pub const SLOT: u32 = 48 * 1024;
/// Two sectors that count the device's starts.
pub const STARTS: u32 = FLASH - 2 * SECTOR;
/// Bytes of the whole flash.
pub const FLASH: u32 = 256 * 1024;
