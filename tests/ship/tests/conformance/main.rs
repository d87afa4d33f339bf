//! Whether a Ship does what it promises to Bay, seen from outside only.
//!
//! A case is a function of a [`Place`]. Each is a test of its own against bare containers, in every isolation that
//! can be had here; against what is costlier to make, all cases of a module are one test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod chart;
mod errors;
mod files;
mod handshake;
mod load;
mod local;
mod meta;
mod python;
mod shell;

use bay_ship_tests::{Container, Place, isolations};

/// Something that a Ship must do.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&dyn Place),
}

/// Names the cases of a module: once for places that are made for many of them, and as tests of their own.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[crate::Case] =
            &[$(crate::Case { name: stringify!($name), run: $name }),+];

        mod bare {
            $(
                #[test]
                fn $name() {
                    crate::in_bare_containers(super::$name);
                }
            )+
        }
    };
}
pub(crate) use cases;

fn in_bare_containers(case: fn(&dyn Place)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        eprintln!("{}", container.name());
        case(&container);
    }
}
