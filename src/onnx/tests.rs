use super::*;
use bytes::Bytes;
use std::path::{Path, PathBuf};

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
            let dims: Vec<usize> = input
                .dims
                .iter()
                .flatten()
                .enumerate()
                .map(|(axis, dim)| match dim {
                    Dim::Known(extent) => *extent,
                    Dim::Symbol(_) | Dim::Unknown => {
                        if axis == 0 {
                            1
                        } else {
                            64
                        }
                    }
                })
                .collect();
            bindings.shape(&input.name, &dims)
        });
        match model.graph(&bindings) {
            Ok(graph) => {
                graph.verify().unwrap();
                let flop: u64 = graph.nodes().ids().map(|node| graph.flop(node)).sum();
                eprintln!(
                    "{file}: {} nodes, {:.3} GFLOP, {:?}",
                    graph.nodes().len(),
                    flop as f64 / 1e9,
                    start.elapsed()
                );
            }
            Err(error) => failures += &format!("{file}: {error}\n"),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
