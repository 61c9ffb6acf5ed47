//! Chores of the repository that are not part of the product; `cargo xtask` lists them.

use std::path::Path;
use std::process::{Command, ExitCode};

/// A chore: its name, what its arguments are, what it does, and how.
struct Chore {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<(), String>,
}

const CHORES: &[Chore] = &[
    Chore { name: "ci", arguments: "", help: "what decides whether a change is good", run: ci },
    Chore {
        name: "expect",
        arguments: "[FILTER]",
        help: "rewrite the expected texts of the tests whose names contain FILTER; the diff is the review",
        run: expect,
    },
    Chore {
        name: "fuzz",
        arguments: "[SECONDS]",
        help: "fuzz the importer (default: 600 s); needs `cargo install cargo-fuzz`",
        run: fuzz,
    },
    Chore {
        name: "measure",
        arguments: "CORPUS MODELS",
        help: "run and time all models, and their accuracy: docs/models.md and benches/results; needs a Python with numpy, onnxruntime and Pillow",
        run: measure,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        println!("usage: cargo xtask CHORE [ARGUMENT...]\n");
        for chore in CHORES {
            println!("  {:<24}{}", format!("{} {}", chore.name, chore.arguments), chore.help);
        }
        return ExitCode::SUCCESS;
    };
    let Some(chore) = CHORES.iter().find(|chore| chore.name == name) else {
        eprintln!("no chore is '{name}'; `cargo xtask` lists them");
        return ExitCode::from(2);
    };
    match (chore.run)(&arguments.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command in the root of the repository.
fn run(command: &mut Command) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shown = format!("{command:?}");
    match command.current_dir(root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown} ended with {status}")),
        Err(error) => Err(format!("{shown} cannot be started: {error}")),
    }
}

fn ci(_arguments: &[String]) -> Result<(), String> {
    run(&mut Command::new(".ci/run"))
}

fn expect(filter: &[String]) -> Result<(), String> {
    run(Command::new("cargo").args(["test", "--workspace"]).args(filter).env("UPDATE_EXPECT", "1"))
}

fn fuzz(arguments: &[String]) -> Result<(), String> {
    let seconds = arguments.first().map_or("600", String::as_str);
    let seconds: u32 = seconds.parse().map_err(|_| format!("'{seconds}' is not a number of seconds"))?;
    let limits = [format!("-max_total_time={seconds}"), "-rss_limit_mb=2048".into(), "-timeout=20".into()];
    // The fuzzer wants the folder of what it finds out, which is not committed.
    let corpus = "fuzz/corpus/import";
    std::fs::create_dir_all(corpus).map_err(|error| format!("{corpus}: {error}"))?;
    // Without sanitizer, as the importer has no `unsafe`, a stable compiler does.
    run(Command::new("cargo")
        .args(["fuzz", "run", "--sanitizer", "none", "import", corpus, "fuzz/seeds", "--"])
        .args(limits)
        .env("RUSTC_BOOTSTRAP", "1"))
}

fn measure(arguments: &[String]) -> Result<(), String> {
    let [corpus, models] = arguments else { return Err("give the folders CORPUS and MODELS".into()) };
    run(Command::new("python3").args(["scripts/models-table.py", models]))?;
    run(Command::new("python3").args(["scripts/imagenet-accuracy.py", corpus]))
}
