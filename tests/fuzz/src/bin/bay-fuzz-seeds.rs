//! `bay-fuzz-seeds DIR`: writes the seeds of every target to a folder of its name, for libFuzzer to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: bay-fuzz-seeds DIR");
        return ExitCode::from(2);
    };
    for target in bay_fuzz::TARGETS {
        let folder = dir.join(target.name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let mut seeds = (target.seeds)().into_iter().enumerate();
            seeds.try_for_each(|(number, seed)| std::fs::write(folder.join(format!("seed-{number}")), seed))
        });
        if let Err(error) = written {
            eprintln!("bay-fuzz-seeds: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
