//! temp
use dunlin::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let onnx = std::fs::read(&a[1]).unwrap();
    let c = match onnx::compile(&onnx, &onnx::Options::default()) {
        Ok(c) => c,
        Err(e) => {
            println!("{e}");
            return;
        }
    };
    let bytes = Block::from(&c.package[..]);
    let package = Package::open(&bytes).unwrap();
    let model = Model::load_hybrid(&package, ops::all()).unwrap();
    for m in &c.missing {
        println!("  foreign {} {}", m.node, m.op);
    }
    let mut ex = onnx::Executor::new(package.foreign().into_iter().flat_map(|f| f.blobs())).unwrap();
    for b in [kernels::Best::Scalar(kernels::Scalar), kernels::best()] {
        let mut mem = Block::zeroed(model.arena_len(b));
        let mut packed = Block::zeroed(model.packed_len(b));
        model.pack(b, &mut packed);
        let mut s = Session::with_packed(&model, Arena::new(&mut mem), &packed, b).unwrap();
        let mut diff = 0;
        let mut total = 0;
        let mut worst = 0f64;
        for k in 0..3 {
            for i in 0..model.plan().input_count() {
                let data = std::fs::read(format!("{}/in{k}_{i}.bin", a[2])).unwrap();
                s.input(i).into_bytes().copy_from_slice(&data);
            }
            s.run();
            for i in 0..model.plan().output_count() {
                let data = std::fs::read(format!("{}/out{k}_{i}.bin", a[2])).unwrap();
                let o = s.output(i);
                if let Some(f) = o.as_slice::<f32>() {
                    for (x, y) in f.iter().zip(data.chunks(4)) {
                        let y = f32::from_le_bytes(y.try_into().unwrap());
                        total += 1;
                        if *x != y {
                            diff += 1;
                            worst = worst.max((x - y).abs() as f64);
                        }
                    }
                } else {
                    for (x, y) in o.bytes().iter().zip(&data) {
                        total += 1;
                        if x != y {
                            diff += 1;
                            worst = worst.max((*x as i8 as f64 - *y as i8 as f64).abs());
                        }
                    }
                }
            }
        }
        let t = std::time::Instant::now();
        let n = if std::env::args().len() > 3 { 50 } else { 3 };
        for _ in 0..n {
            s.run();
        }
        use kernels::Backend;
        println!(
            "{} {}: {diff}/{total} worst {worst}  {:.1} us arena {} bound {}",
            a[1],
            b.name(),
            t.elapsed().as_nanos() as f64 / n as f64 / 1e3,
            c.arena_bytes,
            c.lower_bound
        );
    }
}
