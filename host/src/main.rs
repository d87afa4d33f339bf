//! The `bay` binary: everything it does is in the library.

fn main() -> std::process::ExitCode {
    bay::cli::main()
}
