//! The annulus command: run a node, use and inspect a cluster.
//!
//! One file per group of commands under `commands`. Answers go to standard output, as tables for
//! people or JSON for programs; everything else goes to standard error. Exit codes are stable and
//! listed in `exit`.

mod args;
mod cluster;
mod commands;
mod exit;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version go to standard output and are no failure.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
