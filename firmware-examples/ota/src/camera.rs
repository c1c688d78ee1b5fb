//! What stands for a camera: images in the flash, one after the other, each with the digit that is on it.

use dunlin::kernels::Native;
use dunlin::{InputError, Session};
use dunlin_mcu::{Mapped, Task};

use crate::map::{IMAGE_COUNT, IMAGE_STRIDE, IMAGES, PIXELS};
use crate::nor::Nor;

/// Bytes of the model's output: ten floats.
const OUTPUT: usize = 40;

/// The image that it sees, and what the model made of the last one.
pub struct Camera {
    next: u32,
    pixels: [u8; PIXELS],
    digit: u8,
    output: [u8; OUTPUT],
}

impl Camera {
    pub const fn new() -> Self {
        Self { next: 0, pixels: [0; PIXELS], digit: 0, output: [0; OUTPUT] }
    }

    /// Takes the next image.
    pub fn look(&mut self, flash: &Nor) -> Option<()> {
        let image = flash.mapped(IMAGES + self.next % IMAGE_COUNT * IMAGE_STRIDE, PIXELS + 1)?;
        let (digit, pixels) = image.split_last()?;
        self.pixels.copy_from_slice(pixels);
        (self.digit, self.next) = (*digit, self.next.wrapping_add(1));
        Some(())
    }

    /// The number of the image, and the output's bytes.
    pub fn last(&self) -> (u32, &[u8]) {
        (self.next.wrapping_sub(1) % IMAGE_COUNT, &self.output)
    }
}

impl Task<Native> for Camera {
    fn fill(&mut self, session: &mut Session<'_, '_, Native>) -> Result<(), InputError> {
        let input = session.input(0);
        let (dtype, got) = (dunlin::DType::F32, self.pixels.len());
        let expected = input.tensor().map_or(0, |t| t.len());
        let values = input.as_slice_mut::<f32>().ok_or(InputError::Type { expected: dtype })?;
        if values.len() != got {
            return Err(InputError::Length { expected, got });
        }
        // 0 is paper, 1 is ink.
        values.iter_mut().zip(self.pixels).for_each(|(to, pixel)| *to = f32::from(pixel) * (1.0 / 255.0));
        Ok(())
    }

    fn read(&mut self, session: &Session<'_, '_, Native>) -> bool {
        let output = session.output(0);
        if output.bytes().len() == OUTPUT {
            self.output.copy_from_slice(output.bytes());
        }
        output.argmax() == Some(usize::from(self.digit))
    }
}
