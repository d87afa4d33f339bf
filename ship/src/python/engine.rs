//! What runs Python code: an IPython kernel, or the built-in loop where there is no ipykernel.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::interpreter::Interpreter;
use super::kernel::{Ending, Kernel, StartFailure};
use super::late::Late;
use super::launch::Guard;
use super::output::Collector;
use crate::spawner::client::{Process, Spawner};
use crate::user::World;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// `ipykernel`.
    IPython,
    /// The built-in loop.
    Plain,
}

impl EngineKind {
    /// As `/meta` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IPython => "ipython",
            Self::Plain => "python",
        }
    }
}

/// A running one. Dropping it ends it and all it started.
pub(super) enum Engine {
    IPython(Box<Kernel>),
    Plain(Box<Interpreter>),
}

impl Engine {
    /// Starts it. When the future is dropped, what it started is ended.
    pub(super) async fn start(
        kind: EngineKind,
        spawner: &Spawner,
        world: &World,
        guard: Guard,
        attempt: u64,
        late: Late,
    ) -> Result<Self, StartFailure> {
        match kind {
            EngineKind::IPython => {
                Ok(Self::IPython(Box::new(Kernel::start(spawner, world, guard, attempt, late).await?)))
            }
            EngineKind::Plain => {
                Ok(Self::Plain(Box::new(Interpreter::start(spawner, world, guard, attempt, late).await?)))
            }
        }
    }

    /// Runs code. `collector` has whatever it said, however it ended.
    pub(super) async fn execute(&mut self, code: &str, limit: Duration, collector: &mut Collector) -> Ending {
        match self {
            Self::IPython(kernel) => kernel.execute(code, limit, collector).await,
            Self::Plain(interpreter) => interpreter.execute(code, limit, collector).await,
        }
    }

    /// Takes what it says between executions. Returns when it has ended or cannot be used.
    pub(super) async fn idle(&mut self) -> Ending {
        match self {
            Self::IPython(kernel) => kernel.idle().await,
            Self::Plain(interpreter) => interpreter.idle().await,
        }
    }

    /// What the interpreter itself said last, outside any execution: why it crashed, if it knew.
    pub(super) async fn last_words(&self) -> String {
        match self {
            Self::IPython(kernel) => kernel.last_words().await,
            // All it said is in the answer.
            Self::Plain(_) => String::new(),
        }
    }
}

/// A process that ends, with all it started, when nobody holds this any more.
pub(super) struct Leash(pub(super) Process);

impl Deref for Leash {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Leash {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.kill_everything();
    }
}
