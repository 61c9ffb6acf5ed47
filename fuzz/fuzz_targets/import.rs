//! Any bytes as a model file: the importer may refuse them, but neither panic nor take memory beyond what the file warrants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paisley::onnx::Model;

fuzz_target!(|bytes: &[u8]| {
    let _ = Model::from_bytes(bytes);
});
