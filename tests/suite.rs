//! All integration tests, in one binary that links once: a module a subject, under `tests/suite/`.

mod suite {
    mod cli;
    mod conformance;
    mod goldens;
    mod support;
    mod tidy;
    mod wgsl;
}
