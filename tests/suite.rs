//! All integration tests, in one binary that links once: a module a subject, under `tests/suite/`.

mod suite {
    mod algorithms;
    mod attention;
    mod bad_models;
    mod bytes;
    mod cli;
    mod concatenations;
    mod conformance;
    mod goldens;
    mod layouts;
    mod narrow_weights;
    mod schedules;
    mod support;
    mod tidy;
    mod wgsl;
}
