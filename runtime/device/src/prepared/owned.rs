//! Keeps proofs and repacked weights on the heap.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::vec::Vec;

use dunlin_engine::ops::Operator;
use dunlin_engine::{Arena, Model, Proof, Session};
use dunlin_kernels::Backend;
use dunlin_package::Package;

/// Packages that are kept: what serves, and what runs in its shadow or by turns with it.
const KEPT: usize = 2;
/// Alignment of repacked weights: a cache line.
const ALIGN: usize = 64;

/// What a session is made from, besides the model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Of the package.
    digest: [u8; 32],
    proof: Proof,
    /// For which backend.
    backend: &'static str,
    /// Repacked weights, from `start` on.
    bytes: Vec<u8>,
    start: usize,
}

impl Weights {
    fn new<B: Backend>(package: &Package<'_>, model: &Model<'_, B>, backend: B) -> Self {
        let proof = model.proof(backend);
        let mut bytes = std::vec![0; proof.packed_len() + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        if let Some(packed) = bytes.get_mut(start..start + proof.packed_len()) {
            model.pack(backend, packed);
        }
        Self { digest: package.digest(), proof, backend: backend.name(), bytes, start }
    }

    /// The model of `package`, if these are its weights.
    fn model<'p, B: Backend>(&self, package: &Package<'p>, ops: &'p [Operator<B>], backend: B) -> Option<Model<'p, B>> {
        let same = self.digest == package.digest() && self.backend == backend.name();
        if same { Model::with_proof(package.plan_bytes(), package.weights(), ops, &self.proof) } else { None }
    }

    /// A session, if the arena is large enough.
    pub(crate) fn session<'s, 'p, B: Backend>(
        &'s self,
        model: &'s Model<'p, B>,
        arena: Arena<'s>,
        backend: B,
    ) -> Option<Session<'s, 'p, B>> {
        let packed = self.bytes.get(self.start..self.start + self.proof.packed_len())?;
        Session::with_proof(model, arena, packed, backend, &self.proof).ok()
    }

    /// Bytes of arena that a session needs.
    pub(crate) fn arena_len<B: Backend>(&self, _: &Model<'_, B>, _: B) -> usize {
        self.proof.arena_len()
    }
}

/// Repacked weights that the devices of a process share, each package's once.
///
/// Clones are the same pool. It keeps nothing alive: weights go when the last device that runs them lets go of them.
#[derive(Clone, Debug, Default)]
pub struct WeightPool(Arc<Mutex<Vec<Weak<Weights>>>>);

impl WeightPool {
    /// Packages whose weights some device holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().iter().filter(|weights| weights.strong_count() > 0).count()
    }

    /// Whether no device holds any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Weights>>> {
        // A list of weak references is never half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<'p, B: Backend>(
        &self,
        package: &Package<'p>,
        ops: &'p [Operator<B>],
        backend: B,
    ) -> Option<(Model<'p, B>, Arc<Weights>)> {
        self.lock().iter().filter_map(Weak::upgrade).find_map(|weights| {
            let model = weights.model(package, ops, backend)?;
            Some((model, weights))
        })
    }

    fn add(&self, weights: &Arc<Weights>) {
        let mut all = self.lock();
        all.retain(|weights| weights.strong_count() > 0);
        all.push(Arc::downgrade(weights));
    }
}

/// Keeps the proofs and repacked weights of the last packages that ran.
///
/// They are found by the package's digest, which the updater has compared with its bytes before it lets the package run: after an
/// update, a rollback or an erased slot the digest is another, and what is kept of it is not used.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The last used first.
    kept: Vec<Arc<Weights>>,
    pub(crate) pool: WeightPool,
}

impl Prepared {
    /// The model of a package, proved at its first inference; `None` when it does not load.
    pub(crate) fn load<'p, B: Backend>(
        &mut self,
        package: &Package<'p>,
        ops: &'p [Operator<B>],
        backend: B,
    ) -> Option<(Model<'p, B>, Arc<Weights>)> {
        for (i, weights) in self.kept.iter().enumerate() {
            if let Some(model) = weights.model(package, ops, backend) {
                let weights = weights.clone();
                self.kept.swap(0, i);
                return Some((model, weights));
            }
        }
        let (model, weights) = match self.pool.find(package, ops, backend) {
            Some(found) => found,
            None => {
                let model = Model::load(package, ops).ok()?;
                let weights = Arc::new(Weights::new(package, &model, backend));
                self.pool.add(&weights);
                (model, weights)
            }
        };
        self.kept.truncate(KEPT - 1);
        self.kept.insert(0, weights.clone());
        Some((model, weights))
    }
}

#[cfg(test)]
mod tests {
    use dunlin_engine::ops;
    use dunlin_kernels::{Scalar, available};
    use dunlin_package::op::{Conv, Op, Range, Window};
    use dunlin_package::plan::{Place, PlanWriter, StepWriter, Tensor};
    use dunlin_package::{Builder, DType, EngineVersion, ManifestDraft, PortDraft};

    use super::*;
    use crate::fixtures::Sums;

    /// A package's bytes at a multiple of 64.
    fn aligned(bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut room = std::vec![0; bytes.len() + ALIGN];
        let start = room.as_ptr().align_offset(ALIGN);
        room[start..start + bytes.len()].copy_from_slice(bytes);
        (room, start)
    }

    #[test]
    fn packages_are_told_apart_by_digest_and_the_last_two_are_kept() {
        let packs = ["1", "2", "3"].map(|version| aligned(&Sums::GOOD.package(version).bytes));
        let package = |i: usize| Package::open(&packs[i].0[packs[i].1..packs[i].0.len() - (ALIGN - packs[i].1)]);
        let packages = [0, 1, 2].map(|i| package(i).expect("a package"));
        let mut prepared = Prepared::default();
        let mut load = |i: usize| prepared.load(&packages[i], ops::all(), Scalar).expect("it loads").1;
        let [first, second] = [0, 1].map(&mut load);
        assert_ne!(first.digest, second.digest);
        assert!(Arc::ptr_eq(&load(0), &first) && Arc::ptr_eq(&load(1), &second));
        let third = load(2);
        assert!(Arc::ptr_eq(&load(1), &second) && Arc::ptr_eq(&load(2), &third), "both of the last two");
        assert_eq!(Arc::strong_count(&first), 1, "the device has let go of the first");
    }

    /// A layer of 20 channels that multiplies by `weight`, and adds up 16.
    fn layer(weight: i8) -> Vec<u8> {
        let tensor = |dtype, dims: [u32; 4], place| Tensor {
            dtype,
            rank: 4,
            dims: [dims[0], dims[1], dims[2], dims[3], 1, 1],
            place,
            scale: 0.0,
            zero_point: 0,
        };
        let one = [1; 2];
        let params = Conv {
            window: Window { kernel: one, stride: one, dilation: one, pad: [0; 4] },
            groups: 1,
            x_zero_point: 0,
            range: Range { zero_point: 0, lo: -128, hi: 127 },
        };
        let bias = Tensor { rank: 1, dims: [20, 1, 1, 1, 1, 1], ..tensor(DType::I32, [1; 4], Place::Weights(320)) };
        let plan = PlanWriter {
            arena_bytes: 96,
            tensors: std::vec![
                tensor(DType::I8, [1, 1, 1, 16], Place::Arena(0)),
                tensor(DType::I8, [20, 1, 1, 16], Place::Weights(0)),
                bias,
                tensor(DType::I32, [1, 1, 1, 20], Place::Arena(16)),
            ],
            steps: std::vec![StepWriter::new(Op::Conv, std::vec![Some(0), Some(1), Some(2)], std::vec![3], &params)],
            inputs: std::vec![0],
            outputs: std::vec![3],
        };
        let port = |name: &str, dtype, last| PortDraft {
            name: name.into(),
            dtype,
            dims: std::vec![1, 1, 1, last],
            scale: 0.0,
            zero_point: 0,
            labels: Vec::new(),
        };
        let mut weights = std::vec![weight.cast_unsigned(); 320];
        weights.extend([0; 80]);
        let builder = Builder {
            manifest: ManifestDraft {
                name: "layer".into(),
                version: "1".into(),
                engine_min: EngineVersion { major: 0, minor: 1 },
                ops_version: 1,
                arena_bytes: 96,
                exact: true,
                inputs: std::vec![port("x", DType::I8, 16)],
                outputs: std::vec![port("y", DType::I32, 20)],
                ..ManifestDraft::default()
            },
            plan: plan.write().expect("a plan"),
            weights,
            ..Builder::default()
        };
        builder.build().expect("a package")
    }

    #[test]
    fn after_an_update_and_a_rollback_the_weights_are_those_of_what_runs() {
        // Plans of equal length, which differ in their weights alone; as in slots, at one place after the other.
        let packs = [2, -3, 7].map(|weight| (weight, layer(i8::try_from(weight).expect("small"))));
        for backend in available() {
            let mut prepared = Prepared::default();
            let mut slot = std::vec![0; packs[0].1.len() + ALIGN];
            let start = slot.as_ptr().align_offset(ALIGN);
            for turn in [0, 1, 0, 1, 2, 0, 2, 2, 1, 0] {
                let (weight, bytes) = &packs[turn];
                let room = &mut slot[start..start + bytes.len()];
                room.copy_from_slice(bytes);
                let package = Package::open(room).expect("a package");
                let (model, weights) = prepared.load(&package, ops::all(), backend).expect("it loads");
                assert_eq!(weights.proof.packed_len() > 0, backend.name() != "scalar");
                let mut arena = std::vec![0; weights.arena_len(&model, backend) + 15];
                let mut session = weights.session(&model, Arena::new(&mut arena), backend).expect("room");
                session.input(0).copy_from_slice(&[1i8; 16]).expect("an input");
                session.run();
                let output = session.output(0);
                assert_eq!(output.as_slice::<i32>(), Some(&[16 * weight; 20][..]), "{}", backend.name());
            }
        }
    }

    #[test]
    fn devices_with_a_pool_share_weights() {
        let (bytes, start) = aligned(&Sums::GOOD.package("1").bytes);
        let package = Package::open(&bytes[start..bytes.len() - (ALIGN - start)]).expect("a package");
        let pool = WeightPool::default();
        let mut devices = [(); 2].map(|()| Prepared { pool: pool.clone(), ..Prepared::default() });
        let [one, two] = devices.each_mut().map(|d| d.load(&package, ops::all(), Scalar).expect("it loads").1);
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(pool.len(), 1);
        drop((one, two, devices));
        assert!(pool.is_empty(), "nothing keeps them alive");
    }
}
