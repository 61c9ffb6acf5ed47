use super::testing::{Attribute, Build, info, node, tensor_proto};
use super::*;
use crate::base::Random;
use crate::tensor::{DType, Tensor};
use bytes::Bytes;
use expect_test::{Expect, expect};
use std::path::{Path, PathBuf};

fn check(build: &Build, expected: Expect) {
    expected.assert_eq(&build.text());
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(DType::F32, shape)
}

#[test]
fn a_small_network() {
    let build = Build::new(17)
        .input("x", DType::F32, &["1", "3", "8", "8"])
        .constant("w", zeros(&[4, 3, 3, 3]))
        .constant("scale", zeros(&[4]))
        .constant("bias", zeros(&[4]))
        .constant("mean", zeros(&[4]))
        .constant("variance", zeros(&[4]))
        .constant("fc", zeros(&[10, 64]))
        .constant("fc_bias", zeros(&[10]))
        .node(
            "Conv",
            &["x", "w"],
            &["c"],
            vec![("pads", Attribute::Ints(vec![1; 4])), ("strides", Attribute::Ints(vec![2, 2]))],
        )
        .node("BatchNormalization", &["c", "scale", "bias", "mean", "variance"], &["n"], vec![])
        .node("Relu", &["n"], &["r"], vec![])
        .node("Flatten", &["r"], &["f"], vec![])
        .node("Gemm", &["f", "fc", "fc_bias"], &["y"], vec![("transB", Attribute::Int(1))])
        .output("y");
    check(
        &build,
        expect![[r#"
            graph test
              in    x: f32[1, 3, 8, 8]
              const w: f32[4, 3, 3, 3]
              const n.view: f32[4, 1, 1]
              const n.view.1: f32[4, 1, 1]
              const fc: f32[10, 64]
              const fc_bias: f32[10]
              c: f32[1, 4, 4, 4] = conv(x, w) strides [2, 2], pads [(1, 1), (1, 1)]
              n: f32[1, 4, 4, 4] = map(c, n.view, n.view.1) (x0 * x1) + x2
              r: f32[1, 4, 4, 4] = map(n) max(x0, 0.0)
              f: f32[1, 64] = view(r)
              y.matmul: f32[1, 10] = matmul(f, fc) transpose_b
              y: f32[1, 10] = map(y.matmul, fc_bias) x0 + x1
              out   y
        "#]],
    );
}

#[test]
fn shape_arithmetic_disappears() {
    let build = Build::new(17)
        .input("x", DType::F32, &["batch", "6", "4"])
        .ints("zero", &[0])
        .ints("tail", &[3, 8])
        .node("Shape", &["x"], &["shape"], vec![])
        .node("Gather", &["shape", "zero"], &["first"], vec![("axis", Attribute::Int(0))])
        .node("Concat", &["first", "tail"], &["target"], vec![("axis", Attribute::Int(0))])
        .node("Reshape", &["x", "target"], &["y"], vec![])
        .output("y");
    let graph = build.model().graph(&Bindings::new().dim("batch", 2)).unwrap();
    expect![[r#"
        graph test
          in    x: f32[2, 6, 4]
          y: f32[2, 3, 8] = view(x)
          out   y
    "#]]
    .assert_eq(&graph.to_string());
}

#[test]
fn constants_become_part_of_expressions() {
    let build = Build::new(17)
        .input("x", DType::F32, &["2", "3"])
        .node("Constant", &[], &["three"], vec![("value", Attribute::Tensor(Tensor::scalar(3.0f32)))])
        .node("Constant", &[], &["square"], vec![("value_float", Attribute::Float(2.0))])
        .constant("wide", zeros(&[4, 1, 1]))
        .constant("one", zeros(&[1, 1, 1]))
        .node("Mul", &["x", "three"], &["a"], vec![])
        .node("Pow", &["a", "square"], &["b"], vec![])
        .node("Add", &["b", "wide"], &["c"], vec![])
        .node("Add", &["b", "one"], &["d"], vec![])
        .node("Add", &["three", "square"], &["five"], vec![])
        .node("Sub", &["c", "five"], &["e"], vec![])
        .output("d")
        .output("e");
    check(
        &build,
        expect![[r#"
            graph test
              in    x: f32[2, 3]
              const wide: f32[4, 1, 1]
              const one: f32[1, 1, 1] = 0
              a: f32[2, 3] = map(x) x0 * 3.0
              b: f32[2, 3] = map(a) x0 * x0
              c: f32[4, 2, 3] = map(b, wide) x0 + x1
              d: f32[1, 2, 3] = map(b, one) x0 + x1
              e: f32[4, 2, 3] = map(c) x0 - 5.0
              out   d
              out   e
        "#]],
    );
}

#[test]
fn unbound_dimensions_are_named() {
    let build = Build::new(17)
        .input("x", DType::F32, &["n", "3", "h"])
        .node("Relu", &["x"], &["y"], vec![])
        .output("y");
    check(
        &build,
        expect![[r#"
        input `x`: its shape is not known: x: f32[n, 3, h]; give its shape
    "#]],
    );
    let graph = |bindings: Bindings| build.model().graph(&bindings).map(|graph| graph.to_string());
    assert!(graph(Bindings::new().shape("x", &[1, 3, 5])).is_ok());
    assert!(graph(Bindings::new().dim("n", 1).dim("h", 2)).is_ok());
    // A shape of another rank overrides what the file declares.
    assert!(graph(Bindings::new().shape("x", &[7])).unwrap().contains("x: f32[7]"));
    assert!(graph(Bindings::new().value("x", zeros(&[1, 3, 5]))).is_ok());
    for wrong in [
        Bindings::new().shape("z", &[1]),
        Bindings::new().dim("m", 1).shape("x", &[1, 3, 5]),
        Bindings::new().value("x", Tensor::from_slice(&[1, 3, 5], &[0i64; 15])),
        Bindings::new().dim("n", 2).shape("x", &[1, 3, 5]),
        Bindings::new().shape("x", &[usize::MAX, 3, 5]),
    ] {
        assert!(graph(wrong).is_err());
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let build = Build::new(17)
        .input("x", DType::F32, &["2", "3"])
        .ints("axes", &[5])
        .node("Frobnicate", &["x"], &["a"], vec![])
        .node("NonZero", &["x"], &["b"], vec![])
        .node("Relu", &["x"], &["c"], vec![("slope", Attribute::Float(1.0))])
        .node("Softmax", &["x"], &["d"], vec![("axis", Attribute::Float(1.0))])
        .node("Unsqueeze", &["x", "axes"], &["e"], vec![])
        .node("Add", &["a", "missing"], &["f"], vec![])
        .node("Relu", &["f"], &["g"], vec![])
        .output("g")
        .output("nothing");
    check(
        &build,
        expect![[r#"
            7 problems:
              node `#0:a` (Frobnicate): the operator Frobnicate
              node `#1:b` (NonZero): the operator NonZero: its output shape depends on data
              node `#2:c` (Relu): the attribute slope
              node `#3:d` (Softmax): attribute axis is float, but int is needed
              node `#4:e` (Unsqueeze): there is no axis 5 in a tensor of rank 3
              node `#5:f` (Add): nothing before it gives its input `missing`; the nodes form a cycle or are not in the order of evaluation
              output `nothing`: nothing gives it
        "#]],
    );
    let kinds: Vec<ProblemKind> = build.model().check().iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Unsupported; 3]);
}

#[test]
fn operators_change_with_the_opset() {
    let squeeze_attribute = |opset| {
        Build::new(opset)
            .input("x", DType::F32, &["1", "3"])
            .node("Squeeze", &["x"], &["y"], vec![("axes", Attribute::Ints(vec![0]))])
            .output("y")
    };
    assert!(squeeze_attribute(11).text().contains("y: f32[3] = view(x)"));
    let squeeze_input = Build::new(13)
        .input("x", DType::F32, &["1", "3"])
        .ints("axes", &[-2])
        .node("Squeeze", &["x", "axes"], &["y"], vec![])
        .output("y");
    assert!(squeeze_input.text().contains("y: f32[3] = view(x)"));

    let softmax = |opset| {
        let input = Build::new(opset).input("x", DType::F32, &["2", "3", "4"]);
        input.node("Softmax", &["x"], &["y"], vec![]).output("y").text()
    };
    assert!(softmax(12).contains("y.softmax: f32[2, 12] = softmax(y.view) axis 1"), "{}", softmax(12));
    assert!(softmax(13).contains("y: f32[2, 3, 4] = softmax(x) axis 2"));

    let clip_attribute = Build::new(10)
        .input("x", DType::F32, &["2"])
        .node("Clip", &["x"], &["y"], vec![("max", Attribute::Float(6.0))])
        .output("y");
    assert!(clip_attribute.text().contains("map(x) min(x0, 6.0)"));
    let clip_input = Build::new(11)
        .input("x", DType::F32, &["2"])
        .constant("low", Tensor::scalar(-1.0f32))
        .node("Clip", &["x", "low"], &["y"], vec![])
        .output("y");
    assert!(clip_input.text().contains("map(x) max(x0, -1.0)"));

    let split = |opset, attributes| {
        let input = Build::new(opset).input("x", DType::F32, &["7"]);
        input.node("Split", &["x"], &["a", "b"], attributes).output("a").output("b").text()
    };
    assert!(split(11, vec![("split", Attribute::Ints(vec![3, 4]))]).contains("b: f32[4]"));
    assert!(split(18, vec![("num_outputs", Attribute::Int(2))]).contains("b: f32[3]"));

    let reduce = |opset, attributes, inputs: &[&str]| {
        let input = Build::new(opset).input("x", DType::F32, &["2", "3"]).ints("axes", &[1]);
        input.node("ReduceMean", inputs, &["y"], attributes).output("y").text()
    };
    assert!(reduce(17, vec![("axes", Attribute::Ints(vec![1]))], &["x"]).contains("axes [1], keep"));
    assert!(reduce(18, vec![], &["x", "axes"]).contains("axes [1], keep"));

    let upsample = Build::new(9)
        .input("x", DType::F32, &["1", "1", "2", "2"])
        .constant("scales", Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 3.0]))
        .node("Upsample", &["x", "scales"], &["y"], vec![])
        .output("y");
    assert!(upsample.text().contains("y: f32[1, 1, 4, 6] = view"), "{}", upsample.text());

    let upsample = Build::new(7)
        .input("x", DType::F32, &["1", "1", "2", "2"])
        .node("Upsample", &["x"], &["y"], vec![("scales", Attribute::Floats(vec![1.0, 1.0, 2.0, 3.0]))])
        .output("y");
    assert!(upsample.text().contains("y: f32[1, 1, 4, 6] = view"), "{}", upsample.text());

    let slice = Build::new(9)
        .input("x", DType::F32, &["10"])
        .node(
            "Slice",
            &["x"],
            &["y"],
            vec![("starts", Attribute::Ints(vec![-3])), ("ends", Attribute::Ints(vec![i64::MAX]))],
        )
        .output("y");
    assert!(slice.text().contains("y: f32[3] = slice(x) starts [7]"));
    let backwards = Build::new(13)
        .input("x", DType::F32, &["10"])
        .ints("start", &[-1])
        .ints("end", &[i64::MIN])
        .ints("axis", &[0])
        .ints("step", &[-4])
        .node("Slice", &["x", "start", "end", "axis", "step"], &["y"], vec![])
        .output("y");
    assert!(backwards.text().contains("y: f32[3] = slice(x) starts [9], steps [-4]"));

    assert!(squeeze_attribute(6).text().contains("its opset is 6"));
    assert!(squeeze_attribute(99).text().contains("its opset is 99"));
}

#[test]
fn windows_are_worked_out() {
    let pool = |mut attributes: Vec<(&'static str, Attribute)>| {
        attributes.push(("kernel_shape", Attribute::Ints(vec![3, 3])));
        let input = Build::new(17).input("x", DType::F32, &["1", "1", "8", "8"]);
        input.node("MaxPool", &["x"], &["y"], attributes).output("y").text()
    };
    let strides = || ("strides", Attribute::Ints(vec![2, 2]));
    assert!(pool(vec![strides()]).contains("y: f32[1, 1, 3, 3]"));
    let ceil = pool(vec![strides(), ("ceil_mode", Attribute::Int(1))]);
    assert!(ceil.contains("y: f32[1, 1, 4, 4]") && ceil.contains("overhang [1, 1]"), "{ceil}");
    let same = pool(vec![strides(), ("auto_pad", Attribute::String("SAME_UPPER"))]);
    assert!(same.contains("y: f32[1, 1, 4, 4]") && same.contains("pads [(0, 1), (0, 1)]"), "{same}");
    assert!(pool(vec![("pads", Attribute::Ints(vec![1]))]).contains("pads do not fit"));
    assert!(pool(vec![("strides", Attribute::Ints(vec![0, 1]))]).contains("strides do not fit"));
    assert!(pool(vec![("dilations", Attribute::Ints(vec![i64::MAX, 1]))]).contains("does not fit"));
}

#[test]
fn positions_of_the_largest_count_batches_and_channels() {
    let pool = |storage_order: i64| {
        let attributes = vec![
            ("kernel_shape", Attribute::Ints(vec![1, 2])),
            ("storage_order", Attribute::Int(storage_order)),
        ];
        let x = Tensor::from_slice(
            &[1, 2, 2, 3],
            &[0.0f32, 1.0, 2.0, 3.0, 5.0, 4.0, 9.0, 9.0, 8.0, 1.0, 0.0, 2.0],
        );
        let graph = Build::new(17)
            .constant("x", x)
            .node("MaxPool", &["x"], &["y", "places"], attributes)
            .output("places")
            .graph()
            .unwrap();
        graph.constant(graph.outputs()[0].value).unwrap().to_i64_vec().unwrap()
    };
    assert_eq!(pool(0), [1, 2, 4, 4, 6, 7, 9, 11]);
    assert_eq!(pool(1), [2, 4, 3, 3, 6, 8, 7, 11]);
}

#[test]
fn training_without_chance_is_imported() {
    let dropout = |ratio: f32| {
        Build::new(22)
            .input("x", DType::F32, &["2"])
            .constant("ratio", Tensor::from_slice(&[], &[ratio]))
            .constant("training", Tensor::from_fn(DType::Bool, &[], |_| 1.0))
            .node("Dropout", &["x", "ratio", "training"], &["y", "mask"], vec![])
            .output("y")
            .text()
    };
    assert!(!dropout(0.0).contains("random"));
    assert!(dropout(0.5).contains("its result is random"), "{}", dropout(0.5));
    let norm = |opset: i64| {
        Build::new(opset)
            .input("x", DType::F32, &["2", "3", "4"])
            .input("v", DType::F32, &["3"])
            .node(
                "BatchNormalization",
                &["x", "v", "v", "v", "v"],
                &["y", "mean", "variance"],
                vec![("training_mode", Attribute::Int(1))],
            )
            .output("y")
            .output("mean")
            .text()
    };
    assert!(norm(15).contains("reduce_mean"), "{}", norm(15));
    assert!(norm(13).contains("training as before opset 14"), "{}", norm(13));
}

#[test]
fn known_conditions_choose_a_branch() {
    let branch = |op: &str| {
        let mut build = Build::new(17).node(op, &["x"], &["inner"], vec![]).output("inner");
        std::mem::take(build.graph_mut())
    };
    let model = |condition: bool| {
        Build::new(17)
            .input("x", DType::F32, &["2"])
            .constant("c", Tensor::from_fn(DType::Bool, &[], |_| f64::from(u8::from(condition))))
            .node(
                "If",
                &["c"],
                &["y"],
                vec![
                    ("then_branch", Attribute::Graph(branch("Exp"))),
                    ("else_branch", Attribute::Graph(branch("Log"))),
                ],
            )
            .output("y")
            .text()
    };
    assert!(model(true).contains("y: f32[2] = map(x) exp(x0)"), "{}", model(true));
    assert!(model(false).contains("y: f32[2] = map(x) log(x0)"));
}

#[test]
fn malformed_models_are_refused() {
    let relu = |inputs: &[&str], outputs: &[&str]| {
        Build::new(17).input("x", DType::F32, &["2"]).node("Relu", inputs, outputs, vec![]).output("y")
    };
    assert!(relu(&["y"], &["y"]).text().contains("nothing before it gives"));
    assert!(relu(&["x"], &["x"]).text().contains("`x` is defined twice"));
    assert!(relu(&[], &["y"]).text().contains("input 0 is missing"));
    assert!(relu(&[""], &["y"]).text().contains("input 0 is missing"));
    assert!(relu(&["x"], &[]).text().contains("nothing gives it"));
    assert!(relu(&["x"], &["y", "z"]).text().contains("the output 1 (`z`)"));

    let refused = |bytes: &[u8]| Model::from_bytes(Bytes::copy_from_slice(bytes), NoFolder).unwrap_err();
    assert!(refused(b"not a model").to_string().contains("no ONNX model"));
    assert!(refused(b"").to_string().contains("holds no graph"));
    let whole = relu(&["x"], &["y"]).bytes();
    for length in 0..whole.len() {
        // A part may be a whole message; it must not be taken for the model.
        if let Ok(model) = Model::from_bytes(whole.slice(..length), NoFolder) {
            assert!(model.graph(&Bindings::new()).is_err());
        }
    }

    let with_tensor = |change: fn(&mut proto::TensorProto)| {
        let mut build = Build::new(17).node("Relu", &["w"], &["y"], vec![]).output("y");
        let mut tensor = tensor_proto("w", &zeros(&[2, 2]));
        change(&mut tensor);
        build.graph_mut().initializer.push(tensor);
        build.text()
    };
    assert!(with_tensor(|tensor| tensor.dims = vec![3, 2]).contains("needs 24 bytes, but 16 were given"));
    assert!(with_tensor(|tensor| tensor.dims = vec![-1, 2]).contains("negative"));
    assert!(with_tensor(|tensor| tensor.dims = vec![i64::MAX, i64::MAX]).contains("address space"));
    assert!(with_tensor(|tensor| tensor.dims = vec![0, i64::MAX, i64::MAX]).contains("address space"));
    assert!(with_tensor(|tensor| tensor.dims = vec![1; 99]).contains("rank"));
    assert!(with_tensor(|tensor| tensor.data_type = 8).contains("strings"));
    assert!(with_tensor(|tensor| tensor.data_type = 77).contains("no element type 77"));
    assert!(with_tensor(|tensor| tensor.raw_data = None).contains("has 0 elements"));
    for location in ["/etc/passwd", "../w", "a/../../w", "", "c:\\w", "a//b"] {
        let mut build = Build::new(17).node("Relu", &["w"], &["y"], vec![]).output("y");
        let mut tensor = tensor_proto("w", &zeros(&[2, 2]));
        tensor.raw_data = None;
        tensor.data_location = 1;
        tensor.external_data =
            vec![proto::StringStringEntryProto { key: "location".into(), value: location.into() }];
        build.graph_mut().initializer.push(tensor);
        assert!(build.text().contains("plain relative path"), "{location}: {}", build.text());
    }
}

#[test]
fn external_data_is_sliced() {
    #[derive(Debug)]
    struct Folder;
    impl DataFolder for Folder {
        fn read(&self, name: &str) -> Result<Bytes, String> {
            let bytes: Vec<u8> = (0..3u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
            if name == "data/w.bin" { Ok(bytes.into()) } else { Err("there is no such file".into()) }
        }
    }
    let graph = |entries: &[(&str, &str)]| {
        let mut build = Build::new(17).output("w");
        let mut tensor = tensor_proto("w", &zeros(&[2]));
        tensor.raw_data = None;
        tensor.data_location = 1;
        tensor.external_data = entries
            .iter()
            .map(|(key, value)| proto::StringStringEntryProto { key: (*key).into(), value: (*value).into() })
            .collect();
        build.graph_mut().initializer.push(tensor);
        Model::from_bytes(build.bytes(), Folder).unwrap().graph(&Bindings::new())
    };
    let whole = graph(&[("location", "data/w.bin"), ("offset", "4"), ("length", "8")]).unwrap();
    assert_eq!(whole.constant(whole.outputs()[0].value).unwrap().to_f64_vec(), [1.0, 2.0]);
    assert!(graph(&[("location", "data/w.bin"), ("offset", "8")]).is_err());
    assert!(graph(&[("location", "data/w.bin"), ("offset", "-1")]).is_err());
    assert!(
        graph(&[("location", "data/w.bin"), ("offset", "18446744073709551615"), ("length", "8")]).is_err()
    );
    assert!(graph(&[("location", "other")]).is_err());
    assert!(graph(&[]).is_err());
}

#[test]
fn constants_cannot_grow_without_bound() {
    let mut build = Build::new(17).constant("x0", zeros(&[1 << 12]));
    for i in 0..40 {
        let (input, output) = (format!("x{i}"), format!("x{}", i + 1));
        let twice = [&*input, &*input];
        build = build.node("Concat", &twice, &[&output], vec![("axis", Attribute::Int(0))]);
    }
    let graph = build.output("x40").graph().unwrap();
    let bytes: usize = graph
        .values()
        .ids()
        .filter_map(|value| graph.constant(value))
        .map(|tensor| tensor.bytes().len())
        .sum();
    assert!(bytes < 1 << 20, "{bytes}");
    let simplified = crate::passes::simplify(&graph);
    assert!(simplified.verify().is_ok());

    let huge = Build::new(17)
        .ints("shape", &[1 << 31, 1 << 31])
        .node("ConstantOfShape", &["shape"], &["y"], vec![])
        .output("y");
    assert!(huge.text().contains("address space"));
    let wide = Build::new(17)
        .constant("start", Tensor::scalar(0i64))
        .constant("limit", Tensor::scalar(i64::MAX))
        .constant("delta", Tensor::scalar(1i64))
        .node("Range", &["start", "limit", "delta"], &["y"], vec![])
        .output("y");
    assert!(wide.text().contains("too large") || wide.text().contains("address space"), "{}", wide.text());
}

/// Models with bytes changed at random must be imported or refused, whatever they hold.
#[test]
fn damaged_models_do_not_panic() {
    let branch = {
        let mut build = Build::new(17).node("Exp", &["x"], &["i"], vec![]).output("i");
        std::mem::take(build.graph_mut())
    };
    let seeds = [
        Build::new(17)
            .input("x", DType::F32, &["1", "4", "6", "6"])
            .constant("w", zeros(&[4, 2, 3, 3]))
            .constant("scales", Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 1.5]))
            .ints("axes", &[1])
            .node("Conv", &["x", "w"], &["a"], vec![("group", Attribute::Int(2))])
            .node("Resize", &["a", "", "scales"], &["b"], vec![("mode", Attribute::String("cubic"))])
            .node("Unsqueeze", &["b", "axes"], &["c"], vec![])
            .node("Transpose", &["c"], &["d"], vec![("perm", Attribute::Ints(vec![0, 2, 1, 4, 3]))])
            .node("ConvTranspose", &["x", "w"], &["e"], vec![("strides", Attribute::Ints(vec![2, 2]))])
            .node("Einsum", &["d", "d"], &["f"], vec![("equation", Attribute::String("abcde,abcdf->abef"))])
            .output("e")
            .output("f"),
        Build::new(17)
            .input("x", DType::F32, &["3", "2", "4"])
            .constant("w", zeros(&[1, 20, 4]))
            .constant("r", zeros(&[1, 20, 5]))
            .constant("bias", zeros(&[1, 40]))
            .constant("c", Tensor::from_fn(DType::Bool, &[], |_| 1.0))
            .constant("starts", Tensor::from_slice(&[1], &[1i32]))
            .node("LSTM", &["x", "w", "r", "bias"], &["a", "h"], vec![("hidden_size", Attribute::Int(5))])
            .node("Slice", &["h", "starts", "starts"], &["s"], vec![])
            .node("Pad", &["x"], &["p"], vec![("pads", Attribute::Ints(vec![1; 6]))])
            .node(
                "If",
                &["c"],
                &["z"],
                vec![
                    ("then_branch", Attribute::Graph(branch.clone())),
                    ("else_branch", Attribute::Graph(branch)),
                ],
            )
            .output("a")
            .output("z"),
    ];
    let mut random = Random::new(7);
    for build in &seeds {
        let whole = build.bytes();
        for _ in 0..4000 {
            let mut bytes = whole.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.next_u64() as u8,
                    1 => bytes[at] ^= 1 << random.below(8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(model) = Model::from_bytes(bytes.into(), NoFolder) {
                model.check();
                if let Ok(graph) = model.graph(&Bindings::new()) {
                    graph.verify().unwrap();
                    let simplified = crate::passes::simplify(&graph);
                    crate::passes::group(&simplified, crate::passes::GroupPolicy::default());
                }
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut graph = proto::GraphProto { output: vec![info("y", DType::F32, &[])], ..Default::default() };
    for _ in 0..200 {
        let inner = node("If", &["c"], &["y"], vec![("then_branch", Attribute::Graph(graph))]);
        graph = proto::GraphProto { node: vec![inner], ..Default::default() };
    }
    let mut build = Build::new(17);
    *build.graph_mut() = graph;
    assert!(Model::from_bytes(build.bytes(), NoFolder).unwrap_err().to_string().contains("recursion"));
}

fn onnx_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            onnx_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
}

/// Imports every model below the folder that `PAISLEY_CORPUS` names.
#[test]
fn models_of_the_corpus_import() {
    let Ok(corpus) = std::env::var("PAISLEY_CORPUS") else {
        eprintln!("SKIPPED: PAISLEY_CORPUS names no folder of models");
        return;
    };
    let mut files = Vec::new();
    onnx_files(Path::new(&corpus), &mut files);
    assert!(!files.is_empty(), "no model in {corpus}");
    let mut failures = String::new();
    for path in files {
        let file = path.strip_prefix(&corpus).unwrap().display();
        let start = std::time::Instant::now();
        let model = Model::from_bytes(Bytes::from(std::fs::read(&path).unwrap()), NoFolder).unwrap();
        let bindings = model.inputs().iter().fold(Bindings::new(), |bindings, input| {
            let extent = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Known(extent) => *extent,
                Dim::Symbol(_) | Dim::Unknown => {
                    if axis == 0 {
                        1
                    } else {
                        64
                    }
                }
            };
            let shape: Vec<usize> = input.dims.iter().flatten().enumerate().map(extent).collect();
            bindings.shape(&input.name, &shape)
        });
        match model.graph(&bindings) {
            Ok(graph) => {
                graph.verify().unwrap();
                let flop: u64 = graph.nodes().ids().map(|node| graph.flop(node)).sum();
                let simplified = crate::passes::simplify(&graph);
                simplified.verify().unwrap();
                let groups = crate::passes::group(&simplified, crate::passes::GroupPolicy::default());
                eprintln!(
                    "{file}: {} nodes, {:.3} GFLOP, {} groups, {:?}",
                    graph.nodes().len(),
                    flop as f64 / 1e9,
                    groups.len(),
                    start.elapsed()
                );
            }
            Err(error) => failures += &format!("{file}: {error}\n"),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
