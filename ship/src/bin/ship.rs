//! The binary. Everything is in the library beside it, so that fuzz targets reach what reads hostile bytes.

use std::process::ExitCode;

fn main() -> ExitCode {
    bay_ship::main()
}
