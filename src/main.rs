//! The command `paisley`.
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let bytes = bytes::Bytes::from(std::fs::read(&path).unwrap());
    let model = paisley::onnx::Model::from_bytes(bytes, paisley::onnx::NoFolder).unwrap();
    let graph = model.graph(&paisley::onnx::Bindings::new()).unwrap();
    let mut timings = paisley::compiler::Timings::default();
    let cpu = paisley::runtime::cpu::detect(std::env::var("T").ok().map(|t| t.parse().unwrap()));
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
    if std::env::var("CHECK").is_ok() {
        for kernel in plan.kernels.iter() {
            let mut rng = paisley::base::Random::new(1);
            let params: Vec<_> = kernel
                .nest
                .params
                .iter()
                .map(|&p| &kernel.nest.pool.buffers[p])
                .filter(|b| b.role != paisley::expr::Role::Output)
                .map(|b| paisley::tensor::Tensor::from_fn(b.dtype, &b.shape, |_| rng.unit()))
                .collect();
            let a = paisley::interp::run(&kernel.nest, &params).unwrap();
            let b = paisley::interp::run(&kernel.scheduled, &params);
            let values: paisley::base::IdVec<paisley::plan::Value> = kernel
                .nest
                .params
                .iter()
                .enumerate()
                .map(|(i, &p)| {
                    let b = &kernel.nest.pool.buffers[p];
                    paisley::plan::Value {
                        name: b.name.clone(),
                        fact: paisley::ops::Fact::new(b.dtype, &b.shape),
                        place: match b.role {
                            paisley::expr::Role::Output => paisley::plan::Place::Output(i - params.len()),
                            paisley::expr::Role::Constant => {
                                paisley::plan::Place::Constant(params[i].clone())
                            }
                            _ => paisley::plan::Place::Input(
                                kernel.nest.params[..i]
                                    .iter()
                                    .filter(|&&q| {
                                        kernel.nest.pool.buffers[q].role == paisley::expr::Role::Input
                                    })
                                    .count(),
                            ),
                        },
                    }
                })
                .collect();
            let ids: Vec<_> = values.ids().collect();
            let single = paisley::plan::Plan {
                name: "single".into(),
                inputs: ids
                    .iter()
                    .copied()
                    .filter(|&i| matches!(values[i].place, paisley::plan::Place::Input(_)))
                    .collect(),
                outputs: ids
                    .iter()
                    .copied()
                    .filter(|&i| matches!(values[i].place, paisley::plan::Place::Output(_)))
                    .map(|value| paisley::plan::Output { name: "y".into(), value })
                    .collect(),
                steps: vec![paisley::plan::Step {
                    origin: String::new(),
                    kernel: paisley::base::Id::new(0),
                    bindings: ids,
                    flop: 0,
                }],
                kernels: [kernel.clone()].into_iter().collect(),
                values,
                arena_bytes: 0,
            };
            let inputs: Vec<_> = params
                .iter()
                .zip(&kernel.nest.params)
                .filter(|(_, p)| kernel.nest.pool.buffers[**p].role == paisley::expr::Role::Input)
                .map(|(t, _)| t.clone())
                .collect();
            let mut e = paisley::runtime::cpu::CpuExecutor::new(&single, &cpu).unwrap();
            let got = e.run(&single, &inputs, false).unwrap().outputs;
            for (x, y) in a.iter().zip(&got) {
                let c = paisley::tensor::compare(y, x, paisley::tensor::Tolerance::KERNEL_F32);
                if !c.within {
                    println!("CPU {}: {:?}", kernel.name, c);
                    if let paisley::plan::Code::Cpu(c) = &kernel.code {
                        println!("{}\n{}", kernel.scheduled, c.code);
                    }
                }
            }
            match b {
                Err(e) => println!("{}: scheduled fails: {e}\n{}", kernel.name, kernel.scheduled),
                Ok(b) => {
                    for (x, y) in a.iter().zip(&b) {
                        let c = paisley::tensor::compare(y, x, paisley::tensor::Tolerance::KERNEL_F32);
                        if !c.within {
                            println!("{}: {:?}\n{}", kernel.name, c, kernel.scheduled);
                        }
                    }
                }
            }
        }
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
        for (ns, i) in rows.into_iter().take(std::env::var("N").map_or(14, |n| n.parse().unwrap())) {
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
