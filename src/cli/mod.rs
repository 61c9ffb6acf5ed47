//! Layer 14: the command `paisley`: arguments, files, printing, exit codes. One file a command.
//!
//! Standard output carries the answer (with `--json` one document and nothing else), standard error notes, progress and errors.

mod arguments;
mod bench;
mod check;
mod compare;
mod devices;
mod error;
mod explain;
mod files;
mod host;
mod images;
mod inputs;
mod prepare;
mod profile;
mod report;
mod run;

use clap::{Parser, Subcommand};
use error::Answer;
use std::process::ExitCode;

/// Compiles ONNX models to scheduled loop nests and runs them on GPUs (as WGSL compute shaders) and CPUs.
#[derive(Parser)]
#[command(
    name = "paisley",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 the answer is no (outputs differ, the model would not run); 2 wrong usage or a bad \
                  input file; 3 unsupported; 4 the device failed.\n\nStart with:\n  paisley check MODEL.onnx\n  paisley run \
                  MODEL.onnx --device auto,cpu\n`paisley COMMAND --help` has examples for each."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a model once and say what ran where
    Run(run::Arguments),
    /// Measure a model: load, compile, first run, steady with copies, steady on the device alone
    Bench(bench::Arguments),
    /// Say everything that would keep a model from running, before running it
    Check(check::Arguments),
    /// Compare a model's outputs on two devices, or with a file
    Compare(compare::Arguments),
    /// Show what a model becomes: graph, groups, loop nests, schedules, code
    Explain(explain::Arguments),
    /// List adapters and the CPU with their limits and features
    Devices(devices::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help on a closed pipe has no reader to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match &cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Devices(arguments) => devices::run(arguments),
    };
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
