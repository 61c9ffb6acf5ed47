//! The command `paisley`; see [`paisley::cli`].

fn main() -> std::process::ExitCode {
    paisley::cli::main()
}
