//! The command `paisley`.
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let bytes = bytes::Bytes::from(std::fs::read(&path).unwrap());
    let model = paisley::onnx::Model::from_bytes(bytes, paisley::onnx::NoFolder).unwrap();
    let graph = model.graph(&paisley::onnx::Bindings::new()).unwrap();
    let mut timings = paisley::compiler::Timings::default();
    let cpu = paisley::runtime::cpu::detect(None);
    let plan = paisley::compiler::compile(&graph, &paisley::compiler::Device::Cpu(cpu.clone()), &mut timings)
        .unwrap();
    println!("{timings:?}");
    let t = std::time::Instant::now();
    let mut ex = paisley::runtime::cpu::CpuExecutor::new(&plan, &cpu).unwrap();
    println!("exec {:?}", t.elapsed());
    let golden = std::env::args().nth(2).unwrap();
    let mut npz = npyz::npz::NpzArchive::open(golden).unwrap();
    let read = |npz: &mut npyz::npz::NpzArchive<_>, name: &str| {
        let a = npz.by_name(name).unwrap().unwrap();
        let shape: Vec<usize> = a.shape().iter().map(|&d| d as usize).collect();
        match a.dtype().descr().as_str() {
            s if s.contains("i8") => {
                let v: Vec<i64> = a.into_vec().unwrap();
                paisley::tensor::Tensor::from_slice(&shape, &v)
            }
            _ => {
                let v: Vec<f32> = a.into_vec().unwrap();
                paisley::tensor::Tensor::from_slice(&shape, &v)
            }
        }
    };
    let inputs: Vec<_> =
        plan.inputs.iter().map(|&v| read(&mut npz, &format!("in:{}", plan.values[v].name))).collect();
    let run = ex.run(&plan, &inputs, false).unwrap();
    for (o, t) in plan.outputs.iter().zip(&run.outputs) {
        let want = read(&mut npz, &format!("out:{}", o.name));
        let t = t.reshaped(want.shape()).unwrap();
        println!(
            "{}: {:?}",
            o.name,
            paisley::tensor::compare(&t, &want, paisley::tensor::Tolerance::OfLargest(1e-4))
        );
    }
    let mut best = u64::MAX;
    for _ in 0..20 {
        best = best.min(ex.run(&plan, &inputs, false).unwrap().device_ns.unwrap());
    }
    println!("best {} ms, {} steps, {} kernels", best as f64 / 1e6, plan.steps.len(), plan.kernels.len());
    if std::env::args().nth(3).is_some() {
        let run = ex.run(&plan, &inputs, true).unwrap();
        let mut rows: Vec<(u64, usize)> =
            run.step_ns.unwrap().into_iter().enumerate().map(|(i, n)| (n, i)).collect();
        rows.sort();
        rows.reverse();
        for (ns, i) in rows.into_iter().take(14) {
            let s = &plan.steps[i];
            println!(
                "{:8.1} us {:6.1} GFLOP/s {} [{}]",
                ns as f64 / 1e3,
                s.flop as f64 / ns as f64,
                plan.kernel(s).name,
                s.origin
            );
        }
        if let Some(k) = std::env::args().nth(4) {
            for kernel in plan.kernels.iter() {
                if kernel.name.contains(&k) {
                    println!("{}\n{}\n{}", kernel.nest, kernel.trace, kernel.scheduled);
                    if let paisley::plan::Code::Cpu(c) = &kernel.code {
                        println!("{}", c.code);
                    }
                }
            }
        }
    }
}
