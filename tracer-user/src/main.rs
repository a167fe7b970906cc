//! The `tracer` command: it parses the arguments, runs the verb, and picks the exit code.
//! Input: the command line.

use std::process::ExitCode;

use clap::Parser as _;
use tracer_user::cli::{self, Args};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are answers; everything else is an error, with exit code 2.
        Err(answer) => answer.exit(),
    };
    cli::start_log(&args);
    match cli::run(&args) {
        Ok(code) => code,
        Err(error) => {
            cli::report(&error);
            ExitCode::from(cli::failure_code(&error))
        }
    }
}
