//! Any bytes as a model file, see `import_model.rs`.
#![no_main]

#[path = "../import_model.rs"]
mod import_model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = import_model::import_model(bytes);
});
