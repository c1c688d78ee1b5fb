//! What the sensors of a fleet see: real test data, changed a little from one inference to the next as any sensor's view
//! is, and shifted in known ways.

use dunlin_cli::npz;
use dunlin_models::Artifact;
use dunlin_telemetry::analysis::Random;

/// What changes at the moment of the drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Shift {
    /// Nothing.
    None,
    /// Noise on every value.
    Noise,
    /// Neighbours run together.
    Blur,
    /// Every value is weaker (an image) or louder (a spectrum).
    Gain,
    /// Some classes become frequent, others rare.
    Mix,
    /// A fifth of the inputs belong to no class of the model.
    Unseen,
    /// A part of the devices see the same input again and again.
    Stuck,
}

impl Shift {
    /// All but none.
    pub(crate) const ALL: [Self; 6] = [Self::Noise, Self::Blur, Self::Gain, Self::Mix, Self::Unseen, Self::Stuck];

    /// Lower-case name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Gain => "gain",
            Self::Mix => "class-mix",
            Self::Unseen => "unseen",
            Self::Stuck => "stuck",
        }
    }

    /// The pool of inputs that devices draw from under this shift.
    pub(crate) const fn pool(self) -> Self {
        match self {
            Self::Mix | Self::Stuck => Self::None,
            other => other,
        }
    }
}

/// A model's test data.
pub(crate) struct Scene {
    /// The model.
    pub(crate) artifact: &'static Artifact,
    /// Items as the model takes them.
    pub(crate) items: Vec<Vec<f32>>,
    /// Their labels.
    pub(crate) labels: Vec<usize>,
    /// Rows and columns of an item.
    pub(crate) shape: (usize, usize),
    /// Whether items are images, from 0 to 1; else spectra around 0.
    pub(crate) image: bool,
}

impl Scene {
    /// The test data of a model of this repository.
    pub(crate) fn of(name: &str, version: &str) -> Self {
        let artifact = dunlin_models::find(name, Some(version)).expect("a model of this repository");
        let arrays = npz::read(artifact.test).expect("test data");
        let (x, y) = (&arrays["x"], &arrays["y"]);
        let value = |b: u8| if x.dtype == "|i1" { f32::from(b.cast_signed()) } else { f32::from(b) };
        let rest = &x.shape[x.shape.len() - 2..];
        let shape = (rest[0], rest[1]);
        let scale = |b: &u8| value(*b) * artifact.input_scale + artifact.input_offset;
        let items = x.bytes.chunks_exact(shape.0 * shape.1).map(|item| item.iter().map(scale).collect()).collect();
        let labels = y.bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c) as usize).collect();
        Self { artifact, items, labels, shape, image: name == "digits" }
    }

    /// Item `i` as a sensor sees it this time: moved by up to a pixel or frame, a little stronger or weaker, a little
    /// noise; then shifted. `None` for an item of a class that the model does not have.
    pub(crate) fn view(&self, i: usize, shift: Shift, random: &mut Random) -> (Vec<f32>, Option<usize>) {
        let (rows, columns) = self.shape;
        let mut label = Some(self.labels[i]);
        let mut item = self.items[i].clone();
        if shift == Shift::Unseen && random.uniform() < 0.2 {
            item = self.strange(&item);
            label = None;
        }
        let down = random.below(3) as isize - 1;
        let right = if self.image { random.below(3) as isize - 1 } else { 0 };
        let gain = if self.image { 0.9 + 0.2 * random.uniform() as f32 } else { 1.0 };
        let at = |item: &[f32], r: isize, c: isize| -> f32 {
            let inside = (0..rows as isize).contains(&r) && (0..columns as isize).contains(&c);
            match (inside, self.image) {
                (true, _) => item[r as usize * columns + c as usize],
                (false, true) => 0.0,
                // Sound goes on at the edge of a window.
                (false, false) => item[(r.clamp(0, rows as isize - 1) * columns as isize + c) as usize],
            }
        };
        let every = |item: &[f32], f: &mut dyn FnMut(&[f32], isize, isize) -> f32| -> Vec<f32> {
            (0..rows * columns).map(|k| f(item, (k / columns) as isize, (k % columns) as isize)).collect()
        };
        item = every(&item, &mut |item, r, c| gain * at(item, r - down, c - right));
        match shift {
            Shift::Blur if self.image => {
                for _ in 0..2 {
                    item = every(&item, &mut |item, r, c| {
                        (-1..=1)
                            .flat_map(|y| (-1..=1).map(move |x| (y, x)))
                            .map(|(y, x)| at(item, r + y, c + x))
                            .sum::<f32>()
                            / 9.0
                    });
                }
            }
            // Reverberation: each frame runs into those around it.
            Shift::Blur => {
                item = every(&item, &mut |item, r, c| (-3..=3).map(|y| at(item, r + y, c)).sum::<f32>() / 7.0)
            }
            Shift::Gain if self.image => item.iter_mut().for_each(|v| *v *= 0.45),
            // The logarithm of a gain is a sum, which a cosine transform leaves in the first coefficient alone.
            Shift::Gain => item.iter_mut().step_by(columns).for_each(|v| *v += 1.0),
            _ => {}
        }
        let noise = match (shift, self.image) {
            (Shift::Noise, true) => 0.25,
            (Shift::Noise, false) => 0.7,
            (_, true) => 0.02,
            (_, false) => 0.1,
        };
        for value in &mut item {
            *value += noise * random.normal() as f32;
            if self.image {
                *value = (value.clamp(0.0, 1.0) * 255.0).round() / 255.0;
            }
        }
        (item, label)
    }

    /// Something that the model was not made for: a quarter turn of an image, a spectrum backwards in time.
    fn strange(&self, item: &[f32]) -> Vec<f32> {
        let (rows, columns) = self.shape;
        (0..rows * columns)
            .map(|k| {
                let (r, c) = (k / columns, k % columns);
                if self.image { item[(columns - 1 - c) * columns + r] } else { -item[(rows - 1 - r) * columns + c] }
            })
            .collect()
    }
}
