//! Model files that are damaged, lie or ask for too much: each is judged, none brings the importer or the command down.

use super::support::{note, repository};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output, Stdio};

#[path = "../../fuzz/import_model.rs"]
mod import_model;
use import_model::import_model;

const SEEDS: &str = "fuzz/seeds";
/// Address space in KiB that is enough for the command and any seed.
const MEMORY_KIB: &str = "2097152";
/// Models that are whole, each with what its errors may name.
const WHOLE: [&str; 4] = [
    "examples/models/resnet18-w16.onnx",
    "tests/data/mnist-cntk.onnx",
    "tests/data/mtcnn-onet.onnx",
    "tests/data/mtcnn-rnet.onnx",
];

/// A row of the seeds' index.
#[derive(serde::Deserialize)]
struct Seed {
    file: String,
    expect: String,
    why: String,
}

fn seeds() -> Vec<Seed> {
    let index = std::fs::read_to_string(repository(SEEDS).join("index.json")).unwrap();
    serde_json::from_str(&index).unwrap()
}

/// What is said of the bytes; `Ok` for a model that is taken.
fn judged(bytes: &[u8]) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| import_model(bytes))) {
        Ok(Ok(_graph)) => Ok(()),
        Ok(Err(error)) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.place.is_empty() && !problem.reason.is_empty(), "{problem:?}");
            }
            Err(error.to_string())
        }
        Err(_) => Err("panics".to_string()),
    }
}

#[test]
fn seeds_are_judged_as_their_index_says() {
    let mut complaints = vec![];
    let seeds = seeds();
    assert!(seeds.len() > 100);
    for Seed { file, expect, why } in &seeds {
        let verdict = judged(&std::fs::read(repository(SEEDS).join(file)).unwrap());
        let fits = match (expect.as_str(), &verdict) {
            (_, Err(reason)) if reason == "panics" => false,
            ("accepted", verdict) => verdict.is_ok(),
            ("refused", verdict) => verdict.is_err(),
            ("any", _) => true,
            (other, _) => panic!("{file}: expects `{other}`"),
        };
        if !fits {
            complaints.push(format!("{file} ({why}), {expect}: {verdict:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The command, with so little memory that it could not give a file what it claims to need.
fn paisley(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_paisley");
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v $0; exec \"$@\"", MEMORY_KIB, program]);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(repository("")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Fails unless the command ended with one of `codes`, and with a message that names `file` where that is not 0.
fn complaint(output: &Output, codes: &[i32], file: &str) -> Option<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let named = code == Some(0) || error.contains(file);
    let fine = code.is_some_and(|code| codes.contains(&code)) && !error.contains("panicked") && named;
    (!fine).then(|| format!("{file}: {:?}: {error}", output.status))
}

#[test]
fn the_command_survives_the_seeds() {
    let mut complaints = vec![];
    for Seed { file, expect, why: _ } in &seeds() {
        let path = format!("{SEEDS}/{file}");
        let codes: &[i32] = match expect.as_str() {
            "accepted" => &[0],
            "refused" => &[2, 3],
            _any => &[0, 2, 3],
        };
        complaints.extend(complaint(&paisley(&["run", &path, "--device", "cpu"]), codes, file));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn truncated_models_are_judged() {
    let mut taken = 0;
    for path in WHOLE {
        let whole = std::fs::read(repository(path)).unwrap();
        assert_eq!(judged(&whole), Ok(()), "{path}");
        // Every length near both ends, where the structure is, and some between.
        let step = (whole.len() / 200).max(1);
        let ends = (0..300).chain((300..whole.len()).step_by(step)).chain(whole.len() - 300..whole.len());
        for length in ends {
            match judged(&whole[..length]) {
                // A file that ends between two fields is shorter, but not damaged.
                Ok(()) => taken += 1,
                Err(reason) => assert_ne!(reason, "panics", "{path}, {length} bytes"),
            }
        }
    }
    note(format!("bad models: {taken} truncated files are models of their own"));
}

#[test]
fn truncated_models_end_the_command_with_2_or_3() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.onnx");
    let mut complaints = vec![];
    for model in WHOLE {
        let whole = std::fs::read(repository(model)).unwrap();
        for part in [1, 3, 5, 7] {
            std::fs::write(&path, &whole[..whole.len() * part / 8]).unwrap();
            let output = paisley(&["run", path.to_str().unwrap(), "--device", "cpu"]);
            complaints.extend(complaint(&output, &[2, 3], "short.onnx"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[cfg(unix)]
#[test]
fn a_link_does_not_lead_out_of_the_models_folder() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (model, weights) = (folder.path().join("linked.onnx"), elsewhere.path().join("secret.bin"));
    std::fs::copy(repository("fuzz/seeds/external-missing.onnx"), &model).unwrap();
    std::fs::write(&weights, [0; 16]).unwrap();
    let run = || paisley(&["run", model.to_str().unwrap(), "--device", "cpu"]);
    std::fs::copy(&weights, folder.path().join("nowhere.bin")).unwrap();
    assert_eq!(run().status.code(), Some(0), "{:?}", run());
    std::fs::remove_file(folder.path().join("nowhere.bin")).unwrap();
    std::os::unix::fs::symlink(&weights, folder.path().join("nowhere.bin")).unwrap();
    assert_eq!(complaint(&run(), &[2], "nowhere.bin"), None);
}
