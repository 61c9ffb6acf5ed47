//! The command `paisley`, called as a person or a script calls it: answers, JSON, exit codes, refusals.

use super::support::{self, repository};
use paisley::target::CpuIsa;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const NET: &str = "examples/models/resnet18-w16.onnx";
const NET_GOLDEN: &str = "tests/data/resnet18-w16.npz";
const DIGITS: &str = "tests/data/mnist-cntk.onnx";
const DIGITS_GOLDEN: &str = "tests/data/mnist-cntk.npz";
const CAT: &str = "image=examples/images/chelsea.png";
const LABELS: &str = "examples/models/cifar10-labels.txt";

fn paisley(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paisley"));
    command.current_dir(repository("")).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The answer of a command that ends with exit code `code`.
fn answer(arguments: &[&str], code: i32) -> String {
    let output = paisley(arguments);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{error}");
    out
}

/// The one JSON document of a command that ends with exit code `code`.
fn json(arguments: &[&str], code: i32) -> Value {
    let out = answer(arguments, code);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{out}"))
}

/// A command ends with exit code `code`, prints no answer, and says all of `words`.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = paisley(arguments);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{error}");
    assert_eq!(out, "", "{arguments:?}");
    assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} should say `{word}`: {error}");
    }
}

fn temporary(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_string()
}

#[test]
fn run_names_the_cat() {
    let out = answer(&["run", NET, "--input", CAT, "--labels", LABELS, "--device", "auto,cpu"], 0);
    let first = out.lines().find(|line| line.contains(" %  ")).unwrap();
    assert!(first.ends_with("cat"), "{out}");
    for word in ["placement", "steps on the", "load", "compile", "first run", "as a batch of 1"] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn an_algorithm_says_how_many_convolutions_it_computes() {
    let told = |algorithm: &str| {
        let output = paisley(&["explain", DIGITS, "--device", "cpu", "--algorithm", algorithm]);
        (text(&output.stdout), text(&output.stderr))
    };
    let (kernels, note) = told("im2col");
    assert!(note.contains("note: im2col computes 2 of 2 convolutions"), "{note}");
    assert!(kernels.contains("conv_im2col"), "{kernels}");
    let (kernels, note) = told("winograd4");
    assert!(note.contains("note: winograd4 computes 0 of 2 convolutions"), "{note}");
    assert!(!kernels.contains("winograd"), "{kernels}");
}

#[test]
fn run_answers_in_json() {
    let document =
        json(&["run", NET, "--input", CAT, "--labels", LABELS, "--device", "cpu,reference", "--json"], 0);
    assert_eq!(document["agree"], true);
    let results = document["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, device) in results.iter().zip(["cpu", "reference"]) {
        assert_eq!(result["device"], device);
        let output = &result["outputs"][0];
        assert_eq!((&output["name"], &output["shape"]), (&"logits".into(), &serde_json::json!([1, 10])));
        assert_eq!(output["top"][0][0]["label"], "cat");
        assert!(result["load_ms"].as_f64().unwrap() > 0.0 && result["compile_ms"].is_number());
    }
    let placement = &results[0]["placement"];
    assert!(placement["cpu_steps"].as_u64().unwrap() > 5 && placement["gpu_steps"] == 0, "{placement}");
    assert!(results[1]["placement"]["host_steps"].as_u64().unwrap() > 5);
}

#[test]
fn run_on_a_gpu_agrees_with_the_cpu() {
    if support::gpu().is_none() {
        return;
    }
    let document = json(&["run", NET, "--input", CAT, "--device", "cpu,gpu", "--json"], 0);
    assert_eq!(document["agree"], true, "{document}");
    let gpu = &document["results"][1];
    assert_eq!(gpu["device"], "gpu");
    assert!(gpu["placement"]["gpu_steps"].as_u64().unwrap() > 5, "{gpu}");
    assert!(gpu["placement"]["copies"].as_u64().unwrap() >= 2, "{gpu}");
}

#[test]
fn outputs_are_written_and_compare_equal() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = temporary(&folder, "out.npz");
    let golden = ["--inputs", DIGITS_GOLDEN];
    answer(&[&["run", DIGITS, "--device", "cpu", "--outputs", &outputs], &golden[..]].concat(), 0);
    assert_eq!(support::read_npz(Path::new(&outputs)).len(), 1);
    answer(&[&["compare", DIGITS, "--device", "cpu", "--with", &outputs], &golden[..]].concat(), 0);
    // Random numbers instead of the digit give something else.
    let other = ["compare", DIGITS, "--device", "cpu", "--with", &outputs, "--fill", "random:1"];
    assert!(answer(&other, 1).contains("DIFFERS"));
}

#[test]
fn compare_takes_reference_results() {
    for (model, golden) in [(NET, NET_GOLDEN), (DIGITS, DIGITS_GOLDEN)] {
        let arguments =
            ["compare", model, "--device", "cpu", "--with", golden, "--tolerance", "1e-4", "--json"];
        let document = json(&arguments, 0);
        assert_eq!(document["within"], true, "{document}");
        assert!(document["outputs"][0]["max_of_largest"].as_f64().unwrap() < 1e-4);
    }
    let document = json(&["compare", DIGITS, "--device", "cpu", "--with", "reference", "--json"], 0);
    assert_eq!(document["within"], true);
    json(&["compare", DIGITS, "--device", "cpu", "--with", DIGITS_GOLDEN, "--tolerance", "0", "--json"], 1);
}

#[test]
fn lesser_instruction_sets_answer_alike() {
    for isa in CpuIsa::ALL.into_iter().filter(|&isa| isa <= support::processor().isa) {
        let on_isa = ["--device", "cpu", "--isa", isa.name()];
        let golden = ["--with", NET_GOLDEN, "--tolerance", "1e-4", "--json"];
        let document = json(&[&["compare", NET], &on_isa[..], &golden].concat(), 0);
        assert_eq!(document["within"], true, "{document}");
        let short = ["--runs", "1", "--min-time", "0"];
        let out = answer(&[&["bench", DIGITS], &on_isa[..], &short].concat(), 0);
        assert!(out.contains(&format!("({}, ", isa.name())), "{out}");
    }
    refused(&["run", DIGITS, "--isa", "sse"], 2, &["sse", "generic"]);
}

#[test]
fn bench_gives_five_numbers() {
    let arguments =
        ["bench", DIGITS, "--device", "cpu", "--runs", "3", "--min-time", "0", "--json", "--profile"];
    let document = json(&arguments, 0);
    let fields = ["load_ms", "compile_ms", "first_run_ms", "peak_memory_bytes", "threads", "runs"];
    for field in fields.into_iter().filter(|field| *field != "peak_memory_bytes" || cfg!(target_os = "linux"))
    {
        assert!(document[field].as_f64().unwrap() > 0.0, "{field}: {document}");
    }
    for field in ["steady_ms", "device_ms"] {
        for statistic in ["p50", "p90", "p99", "min", "mean"] {
            assert!(document[field][statistic].as_f64().unwrap() > 0.0, "{field} {statistic}: {document}");
        }
    }
    assert_eq!((&document["device"], &document["runs"]), (&"cpu".into(), &3.into()));
    assert_eq!(document["samples_ms"].as_array().unwrap().len(), 3);
    let profile = &document["profile"];
    let steps = profile["steps"].as_array().unwrap();
    assert!(!steps.is_empty() && profile["measured"]["gflop_per_s"].as_f64().unwrap() > 0.0);
    for step in steps {
        for field in ["ms", "share", "gbyte_per_s", "limit_ms", "of_limit"] {
            assert!(step[field].as_f64().unwrap() > 0.0, "{field}: {step}");
        }
    }
    let share: f64 = steps.iter().map(|step| step["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-6, "{share}");
    let short = ["--runs", "1", "--min-time", "0"];
    let document = json(&[&["bench", DIGITS, "--device", "cpu,reference", "--json"], &short[..]].concat(), 0);
    assert_eq!(document.as_array().unwrap().len(), 2);
    assert_eq!(document[1]["device_ms"], Value::Null);
    let out = answer(&[&["bench", DIGITS, "--device", "cpu", "--threads", "1"], &short[..]].concat(), 0);
    for word in
        ["load and optimise", "compile", "first run", "with copies", "device only", "P99", "1 thread)"]
    {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn bench_writes_a_trace_with_a_row_a_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let short = ["--runs", "1", "--min-time", "0", "--threads", "2", "--profile", "--top", "2", "--trace"];
    let arguments = [&["bench", DIGITS, "--device", "cpu"], &short[..], &[path.to_str().unwrap()]].concat();
    let out = answer(&arguments, 0);
    for word in ["GFLOP/s", "GB/s", "of limit", "wait", "more steps", "all steps"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let events = document["traceEvents"].as_array().unwrap();
    let names = |kind: &str| events.iter().filter(|event| event["ph"] == kind).count();
    let of = |thread: u64| events.iter().filter(move |event| event["tid"] == thread && event["ph"] == "X");
    // A thread may come late to all of so small a model.
    let threads: Vec<u64> = (0..2).filter(|&thread| of(thread).next().is_some()).collect();
    // The process and the threads that worked have names.
    assert_eq!(names("M"), 1 + threads.len());
    assert!(!threads.is_empty());
    for thread in threads {
        assert!(of(thread).any(|event| event["cat"] == "kernel"));
        let ends: Vec<f64> =
            of(thread).map(|event| event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap()).collect();
        assert!(ends.is_sorted(), "{ends:?}");
    }
    answer(&["bench", DIGITS, "--trace", "nowhere.json"], 2);
}

#[test]
fn bench_profiles_an_adapter() {
    if support::gpu().is_none() {
        return;
    }
    let short = ["--runs", "1", "--min-time", "0", "--profile", "--json"];
    let document = json(&[&["bench", DIGITS, "--device", "gpu"], &short[..]].concat(), 0);
    let profile = &document["profile"];
    // Without timestamps the time of a step cannot be told.
    if !profile.is_null() {
        assert!(profile["total_ms"].as_f64().unwrap() > 0.0 && profile["wait"].is_null(), "{profile}");
        assert!(profile["measured"]["gflop_per_s"].as_f64().unwrap() > 0.0);
        assert!(profile["measured"]["reads"].as_array().unwrap().len() > 3);
    }
}

#[test]
fn check_says_whether_a_model_would_run() {
    let document = json(&["check", NET, "--device", "cpu", "--json"], 0);
    assert_eq!((&document["runs"], &document["problems"]), (&true.into(), &serde_json::json!([])));
    assert!(document["devices"][0]["steps"]["cpu"].as_u64().unwrap() > 5);
    for preset in ["webgpu-default", "mobile", "discrete", "avx2"] {
        let document = json(&["check", NET, "--profile", preset, "--json"], 0);
        assert_eq!(document["runs"], true, "{preset}: {document}");
    }
    let document = json(&["check", "fuzz/seeds/operators-unknown.onnx", "--device", "cpu", "--json"], 1);
    let problems = document["problems"].as_array().unwrap();
    assert!(problems.len() > 1, "{document}");
    for problem in problems {
        assert!(problem["place"].as_str().unwrap().contains("node `"), "{problem}");
    }
    assert!(answer(&["check", "fuzz/seeds/operator-unknown.onnx", "--device", "cpu"], 1).contains("NOT run"));
}

#[test]
fn explain_shows_every_stage() {
    let stages = [
        ("imported", "graph "),
        ("graph", "conv("),
        ("dot", "digraph"),
        ("groups", "conv"),
        ("nest", "nest "),
        ("trace", "split"),
        ("scheduled", "for "),
        ("code", "phase"),
        ("all", "-- trace"),
    ];
    for (stage, word) in stages {
        let out = answer(&["explain", DIGITS, "--device", "cpu", "--stage", stage], 0);
        assert!(out.contains(word), "{stage}: {out}");
    }
    let overview = answer(&["explain", DIGITS, "--device", "cpu"], 0);
    assert!(overview.contains("MFLOP") && overview.contains("conv"), "{overview}");
    let code =
        answer(&["explain", DIGITS, "--profile", "discrete", "--kernel", "conv", "--stage", "code"], 0);
    assert!(code.contains("@compute"), "{code}");
    let document = json(&["explain", DIGITS, "--device", "reference", "--kernel", "0", "--json"], 0);
    let kernels = document["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 1);
    assert!(kernels[0]["nest"].as_str().unwrap().starts_with("nest "));
    refused(&["explain", DIGITS, "--device", "cpu", "--kernel", "nothing"], 2, &["no kernel is `nothing`"]);
}

#[test]
fn devices_are_listed_and_saved() {
    let document = json(&["devices", "--json"], 0);
    assert!(document["cpu"]["device"]["cpu"]["threads"].as_u64().unwrap() > 0, "{document}");
    let adapters = document["adapters"].as_array().unwrap().len();
    assert!(answer(&["devices"], 0).contains("instruction set"));
    let folder = tempfile::tempdir().unwrap();
    let saved = temporary(&folder, "cpu.json");
    answer(&["devices", "--save", "cpu", "--to", &saved], 0);
    answer(&["check", DIGITS, "--profile", &saved], 0);
    let number = format!("gpu:{adapters}");
    refused(&["devices", "--save", &number, "--to", &saved], 4, &["adapter"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    refused(&["run"], 2, &["MODEL"]);
    refused(&["fly"], 2, &["fly"]);
    refused(&["run", DIGITS, "--device", "tpu"], 2, &["tpu", "gpu:N"]);
    refused(&["run", DIGITS, "--threads", "0"], 2, &["threads"]);
    refused(&["run", DIGITS, "--fill", "zeros"], 2, &["random:SEED"]);
    refused(&["run", DIGITS, "--shape", "x"], 2, &["NAME=VALUE"]);
    refused(&["run", DIGITS, "--shape", "x=1x2"], 2, &["no input `x`", "Input3"]);
    refused(&["run", DIGITS, "--input", "x=a.npy"], 2, &["no input `x`"]);
    refused(&["compare", DIGITS], 2, &["--with"]);
    refused(&["compare", DIGITS, "--device", "cpu,gpu", "--with", "cpu"], 2, &["one device"]);
    refused(&["check", DIGITS, "--device", "cpu", "--profile", "mobile"], 2, &["cannot be used with"]);
    refused(&["check", DIGITS, "--isa", "generic", "--profile", "mobile"], 2, &["cannot be used with"]);
    refused(&["check", DIGITS, "--profile", "no-such-profile"], 2, &["no-such-profile"]);
}

#[test]
fn bad_files_end_with_2_and_are_named() {
    refused(&["run", "no-such-file.onnx"], 2, &["no-such-file.onnx"]);
    refused(&["run", "examples"], 2, &["examples", "regular file"]);
    refused(&["run", "README.md"], 2, &["README.md", "no ONNX model"]);
    refused(&["run", "fuzz/seeds/cycle.onnx"], 2, &["cycle.onnx", "node"]);
    refused(&["run", "fuzz/seeds/external-parent.onnx"], 2, &["folder"]);
    refused(&["run", DIGITS, "--inputs", "no.npz"], 2, &["no.npz"]);
    refused(&["run", DIGITS, "--inputs", DIGITS], 2, &[".npz archive"]);
    refused(&["run", DIGITS, "--inputs", NET_GOLDEN], 2, &["no input `in:image`"]);
    refused(&["run", DIGITS, "--input", "Input3=README.md"], 2, &["README.md", "NumPy"]);
    refused(&["run", NET, "--input", "image=no.png"], 2, &["no.png"]);
    refused(&["run", NET, "--labels", "no.txt", "--device", "cpu"], 2, &["no.txt"]);
    refused(&["compare", DIGITS, "--with", "no.npz", "--device", "cpu"], 2, &["no.npz"]);
    refused(
        &["compare", DIGITS, "--with", NET_GOLDEN, "--inputs", DIGITS_GOLDEN, "--device", "cpu"],
        2,
        &["output"],
    );
}

#[test]
fn unsupported_models_end_with_3() {
    refused(&["run", "fuzz/seeds/operator-unknown.onnx"], 3, &["node"]);
    refused(&["run", "fuzz/seeds/opset-future.onnx"], 3, &["opset"]);
}

#[test]
fn a_missing_device_ends_with_4() {
    refused(&["run", DIGITS, "--device", "gpu:99"], 4, &["adapter"]);
}

#[test]
fn wrong_arrays_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = temporary(&folder, "x.npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([0; 16]);
    std::fs::write(&path, &bytes).unwrap();
    let input = format!("Input3={path}");
    refused(&["run", DIGITS, "--input", &input], 2, &["Input3", "f32[1, 1, 28, 28]", "f32[2, 2]"]);
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    refused(&["run", DIGITS, "--input", &input], 2, &["ends after 15 of 16 bytes"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paisley"));
    let arguments = ["explain", DIGITS, "--device", "cpu", "--stage", "all"];
    let mut child = command
        .current_dir(repository(""))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).matches("panicked").count(), 0);
}

#[test]
fn the_readme_shows_what_works() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let example = std::fs::read_to_string(repository("examples/run_model.rs")).unwrap();
    let program = example.split_once("use paisley").map(|(_, rest)| format!("use paisley{rest}")).unwrap();
    assert!(readme.contains(&program), "README.md should hold examples/run_model.rs as it is");
    let command = readme.lines().find(|line| line.contains("cargo run --release -- ")).unwrap();
    let (_, arguments) = command.trim().split_once("-- ").unwrap();
    let out = answer(&arguments.split_whitespace().collect::<Vec<_>>(), 0);
    assert!(out.contains("%  cat"), "{out}");
}

#[test]
fn help_has_examples() {
    let help = answer(&["--help"], 0);
    for command in ["run", "bench", "check", "compare", "explain", "devices"] {
        assert!(help.contains(command), "{help}");
        let help = answer(&[command, "--help"], 0);
        assert!(help.contains("Examples:") && help.contains(&format!("paisley {command} ")), "{help}");
    }
}
