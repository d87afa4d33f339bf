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

use std::io::Read as _;
use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use bay_ship_tests::{Container, Place, Setup, is_root, isolations};

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

            #[test]
            fn over_tcp() {
                crate::over_tcp(super::CASES);
            }
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

/// A container that listens on a TCP port.
fn tcp_container() -> Container {
    assert!(is_root(), "entering a container's network takes root: leave this test out as another user");
    let mut setup = Setup::new(Isolation::TwoUid);
    setup.tcp = true;
    setup.start()
}

/// All cases of a module, each in a container of its own that listens on a TCP port.
fn over_tcp(cases: &[Case]) {
    for case in cases {
        let container = tcp_container();
        eprintln!("{}: {}", container.name(), case.name);
        (case.run)(&container);
    }
}

/// A TCP connection belongs to the agent: were it user code's, the routes denied to that would be denied to answers.
#[test]
fn tcp_connections_belong_to_the_agent() {
    let container = tcp_container();
    let established = "while read -r _ here _ state _ _ _ owner _; do \
                       case $here$state in *:1B9E01) echo $owner;; esac; done < /proc/net/tcp";
    let answer = container.client().shell_ok(established);
    assert!(answer.contains("900") && !answer.contains("1000"), "{answer}");
}

/// User code may dial as often as it likes: it gets no word, and none of the places that are Bay's.
#[test]
fn over_tcp_a_flood_from_inside_keeps_nobody_out() {
    let container = tcp_container();
    container.client();
    // More than Ship serves and more than wait in its queue, all kept open.
    let addresses = container.addresses();
    let mut flood: Vec<_> =
        (0..300).map(|turn| container.dial_inside(addresses[turn % 2]).unwrap()).collect();
    let began = Instant::now();
    container.client().shell_ok("true");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for stream in &mut flood {
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        match stream.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0, "Ship speaks to user code"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}
