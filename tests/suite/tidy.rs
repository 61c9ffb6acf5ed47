//! The rules of `docs/style.md` and `docs/architecture.md` that a machine can check, as tests over the sources.
//!
//! The table of layers is read from `docs/architecture.md`, so that the document cannot fall behind the code. Test code is
//! exempt from the rules on layers and on what may be touched: a test of a low layer may be told best by a high one.

mod source;

use source::{Source, files, line_of, names_after, rust, words};
use std::collections::{BTreeMap, BTreeSet};

/// No file is longer, counted in lines.
const MAX_LINES: usize = 800;

/// Where `unsafe` may stand, and why.
const MAY_BE_UNSAFE: &[(&str, &str)] = &[
    ("kernels/", "CPU programs and their micro-kernels work on raw memory"),
    ("src/runtime/", "foreign calls of the GPU interface; the hand-over of buffers to CPU programs"),
    ("src/cli/", "a model file is mapped, and another process could change it"),
];

/// What only some places may name: the identifiers, the places, and why.
const RESERVED: &[(&[&str], &[&str], &str)] = &[
    (&["wgpu"], &["src/runtime/gpu"], "everything else is device-neutral"),
    (
        &["serde"],
        &[
            "src/target",
            "src/schedule/record",
            "src/compiler",
            "src/tune",
            "src/transfer",
            "src/study",
            "src/cli",
        ],
        "stored forms are versioned records, not the data structures of the compiler",
    ),
    (
        &["println!", "print!", "eprintln!", "eprint!", "dbg!", "stdout()", "stderr()"],
        &["src/cli", "src/study", "xtask/"],
        "the terminal belongs to whoever uses the library",
    ),
];

/// Names of the standard library that reach outside, for `cli`, `study` and chores only.
const OUTSIDE: &[&str] = &["fs", "env", "process"];
const MAY_REACH_OUTSIDE: &[&str] = &["src/cli", "src/study", "src/main.rs", "xtask/"];

/// ONNX operator names that cannot be mistaken for anything else.
const OPERATOR_NAMES: &[&str] = &[
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MaxPool",
    "AveragePool",
    "ReduceMean",
    "ReduceSum",
    "LayerNormalization",
    "InstanceNormalization",
    "MatMul",
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Softmax",
    "Unsqueeze",
    "Reshape",
    "ConstantOfShape",
    "QuantizeLinear",
    "DequantizeLinear",
];

/// The rules, each tried on the whole tree; all complaints are reported at once.
fn check(roots: &[&str], rule: impl Fn(&Source, &mut dyn FnMut(usize, String))) {
    report(rust(roots).iter().flat_map(|source| complaints(source, &rule)).collect());
}

fn complaints(source: &Source, rule: impl Fn(&Source, &mut dyn FnMut(usize, String))) -> Vec<String> {
    let mut found = Vec::new();
    rule(source, &mut |line, text| found.push(format!("{}:{line}: {text}", source.path)));
    found
}

fn report(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Each module's layer, from the table of the document.
fn layers() -> BTreeMap<String, usize> {
    let document = include_str!("../../docs/architecture.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, layer, module, ..] = cells[..] else { return None };
        Some((module.strip_prefix('`')?.strip_suffix('`')?.to_string(), layer.parse().ok()?))
    };
    document.lines().filter_map(row).collect()
}

/// The modules that `source` names in its product code by `crate::`, with the line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let names = names_after(&source.product, "crate");
    names.into_iter().map(|(at, name)| (line_of(&source.product, at), name)).collect()
}

fn layer_rule(layers: &BTreeMap<String, usize>, source: &Source, complain: &mut dyn FnMut(usize, String)) {
    let module = source.module().expect("the rule should be asked for files below src");
    if ["lib", "main"].contains(&module) {
        return;
    }
    let Some(layer) = layers.get(module) else {
        return complain(
            1,
            format!("the table of layers in docs/architecture.md lacks the module `{module}`"),
        );
    };
    for (line, name) in imports(source) {
        match layers.get(&name) {
            None => complain(
                line,
                format!("`crate::{name}` is no module of the table: name the module it comes from"),
            ),
            Some(other) if other > layer => {
                complain(line, format!("`{module}` (layer {layer}) imports `{name}` (layer {other})"));
            }
            Some(_) => {}
        }
    }
}

#[test]
fn modules_import_only_from_below() {
    let layers = layers();
    assert!(layers.len() > 15, "the table of layers should be found in the document: {layers:?}");
    check(&["src"], |source, complain| layer_rule(&layers, source, complain));
}

/// Modules of one layer may use one another, in one direction.
#[test]
fn imports_within_a_layer_have_no_cycle() {
    let layers = layers();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in rust(&["src"]) {
        let module = source.module().unwrap_or_default().to_string();
        let same = |name: &String| *name != module && layers.get(name) == layers.get(&module);
        let names = imports(&source).into_iter().map(|(_, name)| name).filter(same);
        uses.entry(module.clone()).or_default().extend(names.collect::<Vec<_>>());
    }
    // A module that uses nothing of those left can be taken away; what cannot be taken away is on a cycle or uses one.
    while let Some(free) = uses.iter().find(|(_, used)| used.is_empty()).map(|(module, _)| module.clone()) {
        uses.remove(&free);
        uses.values_mut().for_each(|used| used.retain(|name| *name != free));
    }
    assert!(uses.is_empty(), "modules of one layer use one another in a circle: {uses:?}");
}

fn reserved_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    for (names, places, reason) in RESERVED {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for name in *names {
            for at in words(&source.product, name) {
                complain(
                    line_of(&source.product, at),
                    format!("`{name}` is kept to {}: {reason}", places.join(", ")),
                );
            }
        }
    }
}

#[test]
fn reserved_names_stay_in_their_places() {
    check(&["src", "kernels/src"], reserved_rule);
}

fn outside_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    if MAY_REACH_OUTSIDE.iter().any(|place| source.path.starts_with(place)) {
        return;
    }
    for (at, name) in names_after(&source.product, "std") {
        if OUTSIDE.contains(&name.as_str()) {
            let line = line_of(&source.product, at);
            complain(
                line,
                format!("`std::{name}` is for the command line: pass bytes and values down instead"),
            );
        }
    }
}

#[test]
fn only_the_command_line_reaches_outside() {
    check(&["src", "kernels/src"], outside_rule);
}

fn border_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    let text = source.product_text();
    if !source.path.starts_with("src/onnx") {
        for name in OPERATOR_NAMES {
            for (at, _) in text.match_indices(&format!("\"{name}\"")) {
                complain(line_of(&text, at), format!("the ONNX name \"{name}\" is known to `onnx` alone"));
            }
        }
    }
    if !source.path.starts_with("src/codegen/wgsl") {
        for mark in ["@workgroup_size", "@binding(", "var<storage", "var<workgroup"] {
            for (at, _) in text.match_indices(mark) {
                complain(
                    line_of(&text, at),
                    format!("`{mark}` is shader text, which `codegen::wgsl` alone writes"),
                );
            }
        }
    }
}

#[test]
fn foreign_languages_stay_at_the_borders() {
    check(&["src"], border_rule);
}

#[test]
fn files_fit_in_a_head() {
    let roots = [
        "src",
        "kernels",
        "tests",
        "benches",
        "examples",
        "xtask",
        "scripts",
        "fuzz/fuzz_targets",
        "shaders",
    ];
    let roots: Vec<&str> = roots.into_iter().filter(|root| std::path::Path::new(root).exists()).collect();
    let long = files(&roots, &["rs", "py", "wgsl"]).into_iter().filter_map(|(path, text)| {
        let n_lines = text.lines().count();
        (n_lines > MAX_LINES)
            .then(|| format!("{path}: {n_lines} lines, more than {MAX_LINES}: split it by subject"))
    });
    report(long.collect());
}

#[test]
fn every_module_says_what_it_is() {
    check(&["src", "kernels/src", "tests"], |source, complain| {
        if source.path != "src/main.rs"
            && !source.path.ends_with("/tests.rs")
            && !source.raw.starts_with("//!")
        {
            complain(1, "begins without a `//!` line that says what the module is".to_string());
        }
    });
}

fn panic_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    for (at, _) in source.product.match_indices(".unwrap()") {
        complain(
            line_of(&source.product, at),
            "`unwrap()`: return an error, or `expect` an invariant".to_string(),
        );
    }
    for (at, call) in source.product.match_indices(".expect(") {
        let argument = source.raw[at + call.len()..].trim_start();
        let Some((message, rest)) = argument.strip_prefix('"').and_then(|text| text.split_once('"')) else {
            continue;
        };
        // A method of that name that returns a result is a parser's, not the one that panics.
        let is_fallible = rest.trim_start().trim_start_matches(',').trim_start().starts_with(")?");
        if !is_fallible && !message.contains("should") {
            complain(
                line_of(&source.product, at),
                "`expect` says what should hold, with the word \"should\"".to_string(),
            );
        }
    }
}

#[test]
fn nothing_panics_without_an_invariant() {
    check(&["src", "kernels/src", "xtask/src"], panic_rule);
}

fn unfinished_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    for mark in ["todo!", "unimplemented!", "#[ignore", "#[should_panic", "dbg!"] {
        for (at, _) in source.code.match_indices(mark) {
            complain(line_of(&source.code, at), format!("`{mark}` must not stay"));
        }
    }
}

#[test]
fn nothing_is_left_unfinished_or_ignored() {
    let roots = ["src", "kernels/src", "xtask/src", "tests", "benches", "examples"];
    let roots: Vec<&str> = roots.into_iter().filter(|root| std::path::Path::new(root).exists()).collect();
    check(&roots, unfinished_rule);
}

fn unsafe_rule(source: &Source, complain: &mut dyn FnMut(usize, String)) {
    let (raw, code): (Vec<&str>, Vec<&str>) = (source.raw.lines().collect(), source.code.lines().collect());
    for at in words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        if !MAY_BE_UNSAFE.iter().any(|(place, _)| source.path.starts_with(place)) {
            complain(line, "`unsafe` outside the places that tests/suite/tidy.rs names".to_string());
        }
        let after = source.code[at + "unsafe".len()..].trim_start();
        if !(after.starts_with('{') || after.starts_with("impl")) {
            continue; // The contract of an unsafe function is its `# Safety` section, which clippy asks for.
        }
        if !has_proof(&raw, &code, line - 1) {
            complain(line, "`unsafe` without a `// SAFETY:` comment above it".to_string());
        }
    }
}

/// Whether the statement that reaches line `index` (from 0) has a SAFETY comment in it or right above it.
fn has_proof(raw: &[&str], code: &[&str], index: usize) -> bool {
    if raw[index].contains("SAFETY:") {
        return true;
    }
    for above in (0..index).rev() {
        if raw[above].contains("SAFETY:") {
            return true;
        }
        let (line, statement) = (raw[above].trim(), code[above].trim());
        let is_between = line.starts_with("//") || line.starts_with("#[");
        if !is_between && (statement.is_empty() || statement.ends_with([';', '{', '}', ','])) {
            return false;
        }
    }
    false
}

#[test]
fn every_unsafe_block_has_its_proof() {
    check(&["src", "kernels/src", "xtask/src"], unsafe_rule);
}

#[test]
fn main_is_a_few_lines() {
    let n_lines = include_str!("../../src/main.rs").lines().count();
    assert!(n_lines <= 30, "src/main.rs has {n_lines} lines: the command line is the module `cli`");
}

/// The rules themselves: each finds what it is there for, and leaves what is right.
#[test]
fn rules_find_what_they_look_for() {
    let layers = layers();
    let by_layer =
        |source: &Source, complain: &mut dyn FnMut(usize, String)| layer_rule(&layers, source, complain);
    type Rule<'a> = &'a dyn Fn(&Source, &mut dyn FnMut(usize, String));
    let cases: &[(Rule, &str, &str, usize)] = &[
        (&by_layer, "src/expr/mod.rs", "use crate::base::Id;\nuse crate::{tensor::DType, loopir::Nest};", 1),
        (&by_layer, "src/expr/mod.rs", "use crate::Anything;", 1),
        (&by_layer, "src/expr/mod.rs", "#[cfg(test)]\nmod tests { use crate::loopir::Nest; }", 0),
        (&by_layer, "src/expr/mod.rs", "/// Unlike [`crate::loopir::Nest`].\nfn f() {}", 0),
        (&by_layer, "src/misc/mod.rs", "", 1),
        (&reserved_rule, "src/plan/mod.rs", "use wgpu::Buffer; fn f() { println!(\"wgpu\") }", 2),
        (&reserved_rule, "src/runtime/gpu/mod.rs", "use wgpu::Buffer;", 0),
        (&outside_rule, "src/onnx/mod.rs", "use std::{fmt, fs::File};\nfn f() { std::env::args(); }", 2),
        (&outside_rule, "src/cli/mod.rs", "use std::fs;", 0),
        (&border_rule, "src/graph/mod.rs", "const A: &str = \"Conv\"; // \"Gemm\"", 1),
        (
            &border_rule,
            "src/runtime/mod.rs",
            "const A: &str = \"@compute @workgroup_size(1) fn main() {}\";",
            1,
        ),
        (
            &panic_rule,
            "src/graph/mod.rs",
            "fn f() { a.unwrap(); b.expect(\"failed\"); c.expect(\"it should be\"); d.expect(\":\")?; }",
            2,
        ),
        (&unfinished_rule, "tests/a.rs", "#[ignore]\nfn f() { todo!() }", 2),
        (
            &unsafe_rule,
            "kernels/src/a.rs",
            "// SAFETY: so.\nlet a =\n    unsafe { b() };\nlet c = unsafe { d() };",
            1,
        ),
        (&unsafe_rule, "src/graph/mod.rs", "// SAFETY: so.\nunsafe { b() }", 1),
    ];
    for (rule, path, raw, expected) in cases {
        let found = complaints(&Source::new(path, raw.to_string()), rule);
        assert_eq!(found.len(), *expected, "{path}: {raw}\n{found:?}");
    }
}
