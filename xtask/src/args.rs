//! What can be typed.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;

use crate::images::{self, Base, Target};

/// Shown by `cargo xtask help`.
pub(crate) const HELP: &str = "\
Usage: cargo xtask CHORE

  quickstart [--once] [--driver docker] [-- ARGS]
                                 set up, build, start Bay, show what it does; leaves it running
                                 (--once: stop it again); ARGS go to `bay quickstart`
  images [--target ship|slim|base|all] [--base IMAGE | --bootstrap] [--ca FILE] [--measure]
                                 the images that sandboxes run in, on the engine that `docker` finds
  setup                          install what is missing on this machine
  test [--suite all|root|user|docker] [-- FILTER]
                                 formatting, lints, bans, house rules, all tests; FILTER goes to nextest
  rules                          only the house rules, which take a moment
  bench path|ship|docker [--json FILE]
  bench api [--json FILE] [--minutes N] [--quick]
                                 the measured promises, release build (--minutes of mixed load: 10; --quick only
                                 shows that it runs)
  soak [--minutes N]             the tests again and again, with bigger random cases
  soak ship [--minutes N] [--seed N]
                                 kills kernel, shell and Ship at random under load (10 minutes)
  soak kills [--kills N] [--seed N]
                                 kills Bay at random under load, and looks for what was lost or done twice (1000)
  fuzz [TARGET] [--minutes N]    libFuzzer on what reads hostile bytes, every target in turn (2 minutes each)
  ci                             exactly what CI runs
";

/// One chore.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    Help,
    Setup,
    Quickstart(Quickstart),
    Images(images::Options),
    Test(Test),
    Rules,
    Ci,
    Bench(Bench),
    Soak(Soak),
    Fuzz(Fuzz),
}

/// `quickstart`: everything is passed on to `bay quickstart`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Quickstart {
    pub(crate) pass_on: Vec<String>,
}

/// Whose processes run the tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Suite {
    /// As root, then as a normal user, then in containers. As a normal user the first and the last go through sudo.
    #[default]
    All,
    Root,
    User,
    /// In containers, on a Docker engine of their own.
    Docker,
}

/// `test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) suite: Suite,
    /// Given to nextest as it is.
    pub(crate) filter: Vec<String>,
}

/// `bench`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bench {
    pub(crate) name: String,
    pub(crate) json: Option<PathBuf>,
    /// Of mixed load, for `api`.
    pub(crate) minutes: Option<u64>,
    /// For `api`: with small numbers.
    pub(crate) quick: bool,
}

/// `soak`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Soak {
    pub(crate) what: Soaked,
    /// What repeats a run of Ship's or of Bay's.
    pub(crate) seed: Option<u64>,
}

/// What is soaked, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Soaked {
    /// The whole suite, for minutes.
    Suite(u64),
    /// Only Ship, killed at random, for minutes.
    Ship(u64),
    /// Only Bay, killed this often.
    Kills(u64),
}

/// Most kills: some hours of them.
const MAX_KILLS: u64 = 100_000;

/// `fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fuzz {
    /// One target; otherwise each in turn.
    pub(crate) target: Option<String>,
    /// For each.
    pub(crate) minutes: u64,
}

/// The longest soak: a day, so that a slip of the finger does not run for a year.
const MAX_SOAK_MINUTES: u64 = 24 * 60;

/// Reads a command line.
pub(crate) fn parse(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let Some(first) = words.next()? else { return Ok(Chore::Help) };
    let Value(chore) = first else {
        return match first {
            Short('h') | Long("help") => Ok(Chore::Help),
            other => Err(other.unexpected().into()),
        };
    };
    match chore.string()?.as_str() {
        "help" => nothing_more(words, Chore::Help),
        "setup" => nothing_more(words, Chore::Setup),
        "rules" => nothing_more(words, Chore::Rules),
        "ci" => nothing_more(words, Chore::Ci),
        "quickstart" => quickstart(words),
        "images" => images(words),
        "test" => test(words),
        "bench" => bench(words),
        "soak" => soak(words),
        "fuzz" => fuzz(words),
        other => bail!("there is no chore `{other}`\n\n{HELP}"),
    }
}

fn nothing_more(mut words: lexopt::Parser, chore: Chore) -> anyhow::Result<Chore> {
    match words.next()? {
        None => Ok(chore),
        Some(word) => Err(word.unexpected().into()),
    }
}

fn quickstart(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let mut options = Quickstart::default();
    while let Some(word) = words.next()? {
        match word {
            Long("once") => options.pass_on.push("--once".to_owned()),
            Long("driver") => options.pass_on.extend(["--driver".to_owned(), words.value()?.string()?]),
            Value(value) => options.pass_on.push(value.string()?),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(Chore::Quickstart(options))
}

fn images(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let mut options = images::Options { targets: Vec::new(), base: None, ca: None, measure: false };
    while let Some(word) = words.next()? {
        match word {
            Long("target") => {
                match words.value()?.string()?.as_str() {
                    "all" => options.targets = Target::ALL.to_vec(),
                    name => options.targets.push(Target::named(name).with_context(|| {
                        format!("--target is `ship`, `slim`, `base` or `all`, not `{name}`")
                    })?),
                }
            }
            Long("base") if options.base.is_none() => {
                options.base = Some(Base::Image(words.value()?.string()?));
            }
            Long("bootstrap") if options.base.is_none() => options.base = Some(Base::Bootstrap),
            // The folder is the caller's, not the workspace's.
            Long("ca") => options.ca = Some(std::path::absolute(words.value()?)?),
            Long("measure") => options.measure = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if options.targets.is_empty() {
        options.targets = Target::ALL.to_vec();
    }
    Ok(Chore::Images(options))
}

fn test(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let mut options = Test::default();
    while let Some(word) = words.next()? {
        match word {
            Long("suite") => {
                options.suite = match words.value()?.string()?.as_str() {
                    "all" => Suite::All,
                    "root" => Suite::Root,
                    "user" => Suite::User,
                    "docker" => Suite::Docker,
                    other => bail!("--suite is `all`, `root`, `user` or `docker`, not `{other}`"),
                }
            }
            Value(value) => options.filter.push(value.string()?),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    Ok(Chore::Test(options))
}

fn bench(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let (mut name, mut json, mut minutes, mut quick) = (None, None, None, false);
    while let Some(word) = words.next()? {
        match word {
            Long("json") => json = Some(PathBuf::from(words.value()?)),
            Long("minutes") => minutes = Some(bounded(words.value()?.parse()?)?),
            Long("quick") => quick = true,
            Value(value) if name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let name = name.context("which bench? there are `path`, `ship`, `docker` and `api`")?;
    if (minutes.is_some() || quick) && name != "api" {
        bail!("--minutes and --quick are for `bench api`");
    }
    Ok(Chore::Bench(Bench { name, json, minutes, quick }))
}

fn soak(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let (mut what, mut minutes, mut kills, mut seed) = (None, None, None, None);
    while let Some(word) = words.next()? {
        match word {
            Long("minutes") => minutes = Some(words.value()?.parse()?),
            Long("kills") => kills = Some(words.value()?.parse()?),
            Long("seed") => seed = Some(words.value()?.parse()?),
            Value(value) if what.is_none() && (value == "ship" || value == "kills") => what = Some(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let soaked = match what {
        None if seed.is_some() => bail!("--seed is for `soak ship` and `soak kills`"),
        Some(what) if what == "kills" => {
            if minutes.is_some() {
                bail!("--minutes is not for `soak kills`: it has --kills");
            }
            let kills = kills.unwrap_or(1000);
            if !(1..=MAX_KILLS).contains(&kills) {
                bail!("--kills is 1 to {MAX_KILLS}");
            }
            Soaked::Kills(kills)
        }
        _ if kills.is_some() => bail!("--kills is for `soak kills`"),
        Some(_) => Soaked::Ship(bounded(minutes.unwrap_or(10))?),
        None => Soaked::Suite(bounded(minutes.unwrap_or(30))?),
    };
    Ok(Chore::Soak(Soak { what: soaked, seed }))
}

fn fuzz(mut words: lexopt::Parser) -> anyhow::Result<Chore> {
    let (mut target, mut minutes) = (None, 2);
    while let Some(word) = words.next()? {
        match word {
            Long("minutes") => minutes = words.value()?.parse()?,
            Value(value) if target.is_none() => target = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Chore::Fuzz(Fuzz { target, minutes: bounded(minutes)? }))
}

fn bounded(minutes: u64) -> anyhow::Result<u64> {
    if !(1..=MAX_SOAK_MINUTES).contains(&minutes) {
        bail!("--minutes is 1 to {MAX_SOAK_MINUTES}");
    }
    Ok(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> anyhow::Result<Chore> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn what_the_readme_says_can_be_typed() {
        assert_eq!(
            typed("quickstart --once").unwrap(),
            Chore::Quickstart(Quickstart { pass_on: vec!["--once".into()] })
        );
        assert_eq!(typed("test").unwrap(), Chore::Test(Test::default()));
        assert_eq!(
            typed("bench path --json out.json").unwrap(),
            Chore::Bench(Bench {
                name: "path".into(),
                json: Some("out.json".into()),
                minutes: None,
                quick: false
            })
        );
    }

    #[test]
    fn a_soak_of_a_part_has_its_own_length_and_seed() {
        let soak = |line| match typed(line).unwrap() {
            Chore::Soak(soak) => (soak.what, soak.seed),
            other => panic!("another chore: {other:?}"),
        };
        assert_eq!(soak("soak"), (Soaked::Suite(30), None));
        assert_eq!(soak("soak ship"), (Soaked::Ship(10), None));
        assert_eq!(soak("soak ship --minutes 2 --seed 7"), (Soaked::Ship(2), Some(7)));
        assert_eq!(soak("soak kills"), (Soaked::Kills(1000), None));
        assert_eq!(soak("soak kills --kills 3 --seed 7"), (Soaked::Kills(3), Some(7)));
        let fuzz = Chore::Fuzz(Fuzz { target: Some("query".into()), minutes: 3 });
        assert_eq!(typed("fuzz query --minutes 3").unwrap(), fuzz);
    }

    #[test]
    fn images_are_all_or_the_named_ones_on_one_base() {
        let images = |line| match typed(line).unwrap() {
            Chore::Images(options) => options,
            other => panic!("another chore: {other:?}"),
        };
        assert_eq!(images("images").targets, Target::ALL);
        let one = images("images --target slim --base debian:13 --ca /tmp/ca.pem");
        assert_eq!((one.targets, one.base), (vec![Target::Slim], Some(Base::Image("debian:13".into()))));
        assert_eq!(one.ca, Some("/tmp/ca.pem".into()));
        assert_eq!(images("images --bootstrap").base, Some(Base::Bootstrap));
    }

    #[test]
    fn what_comes_after_two_dashes_is_passed_on() {
        let Chore::Quickstart(options) = typed("quickstart --once -- --data-dir /tmp/x").unwrap() else {
            panic!("another chore")
        };
        assert_eq!(options.pass_on, ["--once", "--data-dir", "/tmp/x"]);
        let Chore::Test(options) = typed("test --suite user -- -E test(x)").unwrap() else { panic!() };
        assert_eq!((options.suite, options.filter.len()), (Suite::User, 2));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in [
            "frobnicate",
            "setup now",
            "test --suite none",
            "images --target latest",
            "images --bootstrap --base x",
            "bench",
            "bench path --quick",
            "bench api --minutes 0",
            "soak --minutes 0",
            "soak --minutes x",
            "soak --seed 1",
            "soak bay",
            "soak kills --minutes 1",
            "soak kills --kills 0",
            "soak ship --kills 1",
            "soak ship kills",
            "fuzz a b",
        ] {
            assert!(typed(line).is_err(), "{line}");
        }
    }
}
