//! Which session may do what, as pure code: no I/O, no clock, no lock, never awaits.
//!
//! ```text
//!            start              started             stop               stopped
//!   idle ───────────▶ starting ─────────▶ ready ───────────▶ stopping ─────────▶ idle
//!     ▲                 │   │               │                    ▲
//!     │ stopped         │   │ start_failed  │ died               │
//!     │                 │   ▼               ▼                    │
//!     └── (stopping) ◀──┘  failed          lost                  │
//!          stop: the start  │  start         │ start             │
//!          is cancelled     └──▶ starting ◀──┘                   │
//!                           stop on failed or lost ──────────────┘ (nothing runs: straight on to idle)
//! ```
//!
//! - **idle**: nothing runs; only the locker exists.
//! - **starting**: one start is under way; every caller waits for the same one.
//! - **ready**: containers run and have proven themselves.
//! - **stopping**: containers are being removed; a start asked for now begins when that is done.
//! - **failed**: the last start did not work and has undone what it made.
//! - **lost**: a container died by itself. Shown to clients as `failed`.

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing runs.
    Idle,
    /// A start is under way.
    Starting,
    /// Containers run.
    Ready,
    /// Containers are being removed.
    Stopping,
    /// The last start failed.
    Failed,
    /// A container died.
    Lost,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Starting, Self::Ready, Self::Stopping, Self::Failed, Self::Lost];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody needs it running.
    Start,
    /// The start worked.
    Started,
    /// The start did not work and has been undone.
    StartFailed,
    /// Somebody wants it gone.
    Stop,
    /// Everything has been removed.
    Stopped,
    /// A container ended by itself.
    Died,
}

/// The event cannot happen in that phase: a bug in the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen while {phase:?}")]
pub struct Illegal {
    /// Where it was.
    pub phase: Phase,
    /// What was said to happen.
    pub event: Event,
}

/// The next phase; the same phase where the event changes nothing.
pub fn next(phase: Phase, event: Event) -> Result<Phase, Illegal> {
    match (phase, event) {
        (Phase::Idle | Phase::Failed | Phase::Lost, Event::Start) => Ok(Phase::Starting),
        (Phase::Starting | Phase::Ready | Phase::Stopping, Event::Start) => Ok(phase),
        (Phase::Starting, Event::Started) => Ok(Phase::Ready),
        (Phase::Starting, Event::StartFailed) => Ok(Phase::Failed),
        (Phase::Starting | Phase::Ready | Phase::Failed | Phase::Lost, Event::Stop) => Ok(Phase::Stopping),
        (Phase::Idle | Phase::Stopping, Event::Stop) => Ok(phase),
        (Phase::Stopping, Event::Stopped) => Ok(Phase::Idle),
        (Phase::Ready, Event::Died) => Ok(Phase::Lost),
        // A start that was cancelled ends while its session is already stopping, and what is being stopped dies.
        (Phase::Stopping, Event::Started | Event::StartFailed | Event::Died) => Ok(phase),
        (Phase::Idle | Phase::Ready | Phase::Failed | Phase::Lost, Event::Started | Event::StartFailed)
        | (Phase::Idle | Phase::Starting | Phase::Ready | Phase::Failed | Phase::Lost, Event::Stopped)
        | (Phase::Idle | Phase::Starting | Phase::Failed | Phase::Lost, Event::Died) => {
            Err(Illegal { phase, event })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 6] =
        [Event::Start, Event::Started, Event::StartFailed, Event::Stop, Event::Stopped, Event::Died];

    #[test]
    fn a_session_goes_round() {
        let mut phase = Phase::Idle;
        for (event, expected) in [
            (Event::Start, Phase::Starting),
            (Event::Started, Phase::Ready),
            (Event::Died, Phase::Lost),
            (Event::Start, Phase::Starting),
            (Event::StartFailed, Phase::Failed),
            (Event::Start, Phase::Starting),
            (Event::Stop, Phase::Stopping),
            (Event::StartFailed, Phase::Stopping),
            (Event::Stopped, Phase::Idle),
        ] {
            phase = next(phase, event).unwrap();
            assert_eq!(phase, expected, "after {event:?}");
        }
    }

    proptest! {
        /// Against a model that only counts containers: they exist exactly while starting, ready or stopping,
        /// and only a start makes them.
        #[test]
        fn containers_exist_only_between_a_start_and_its_end(picks in prop::collection::vec(0..EVENTS.len(), 0..200)) {
            let mut phase = Phase::Idle;
            let mut may_run = false;
            for pick in picks {
                let event = EVENTS[pick];
                let Ok(then) = next(phase, event) else { continue };
                if phase != Phase::Starting && then == Phase::Starting {
                    prop_assert!(!may_run, "a second start while {phase:?}");
                    may_run = true;
                }
                if matches!(then, Phase::Idle | Phase::Failed | Phase::Lost) {
                    may_run = false;
                }
                if then == Phase::Ready { prop_assert!(may_run); }
                phase = then;
            }
        }

        /// Stopping is possible from everywhere and always ends in idle.
        #[test]
        fn everything_can_be_stopped(picks in prop::collection::vec(0..EVENTS.len(), 0..50)) {
            let mut phase = Phase::Idle;
            for pick in picks { phase = next(phase, EVENTS[pick]).unwrap_or(phase); }
            phase = next(phase, Event::Stop).unwrap();
            if phase == Phase::Stopping { phase = next(phase, Event::Stopped).unwrap(); }
            prop_assert_eq!(phase, Phase::Idle);
        }
    }
}
