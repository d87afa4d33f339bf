//! Executions that this Bay has under way: whom a cancellation reaches before the runtime knows of the work, and whom
//! those wait for who ask for its end. Bounded as calls in flight are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::ApiResult;

/// How an execution ended: as its own call was answered.
pub type End = Arc<ApiResult<Value>>;

/// All of them, by `exe_…`.
#[derive(Debug, Default)]
pub struct Flights {
    under_way: Mutex<HashMap<String, Arc<Flight>>>,
}

/// One execution under way.
#[derive(Debug)]
pub struct Flight {
    cancelled: CancellationToken,
    end: watch::Sender<Course>,
}

#[derive(Debug)]
enum Course {
    UnderWay,
    /// Null where nobody had asked for it by then.
    Over(Option<End>),
}

/// Held by whoever does the work; the flight is over when it is dropped.
#[derive(Debug)]
pub struct Flying {
    id: String,
    flight: Arc<Flight>,
    flights: Arc<Flights>,
}

impl Flights {
    /// Before its intent is written, so that whatever is recorded as running and not found here is another Bay's.
    pub fn begin(self: &Arc<Self>, id: &str) -> Flying {
        let flight = Arc::new(Flight {
            cancelled: CancellationToken::new(),
            end: watch::Sender::new(Course::UnderWay),
        });
        self.under_way().insert(id.to_owned(), Arc::clone(&flight));
        Flying { id: id.to_owned(), flight, flights: Arc::clone(self) }
    }

    /// One of them.
    pub fn find(&self, id: &str) -> Option<Arc<Flight>> {
        self.under_way().get(id).cloned()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Arc<Flight>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// What has not come to the runtime yet never will.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Waits for the end, at most `patience`. None where it takes longer, or where only the record knows it.
    pub async fn ended(&self, patience: Duration) -> Option<End> {
        let mut course = self.end.subscribe();
        let over = |course: &Course| matches!(course, Course::Over(_));
        match &*tokio::time::timeout(patience, course.wait_for(over)).await.ok()?.ok()? {
            Course::Over(end) => end.clone(),
            Course::UnderWay => None,
        }
    }
}

impl Flying {
    /// Resolves when somebody cancels it.
    pub async fn cancelled(&self) {
        self.flight.cancelled.cancelled().await;
    }

    /// The work is over and recorded.
    pub fn land(&self, end: &ApiResult<Value>) {
        // Not copied where nobody else knows of it: it may be megabytes. The map and we are two.
        let known = Arc::strong_count(&self.flight) > 2;
        if known {
            self.flight.end.send_replace(Course::Over(Some(Arc::new(end.clone()))));
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.id);
        self.flight.end.send_if_modified(|course| {
            let late = matches!(course, Course::UnderWay);
            if late {
                *course = Course::Over(None);
            }
            late
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_learns_of_the_end_and_nothing_is_left() {
        let flights = Arc::new(Flights::default());
        let flying = flights.begin("exe_1");
        let flight = flights.find("exe_1").unwrap();
        let (end, ()) = tokio::join!(flight.ended(Duration::from_secs(5)), async {
            flying.land(&Ok(Value::from(7)));
        });
        assert_eq!(end.unwrap().as_ref().as_ref().ok(), Some(&Value::from(7)));
        drop(flying);
        assert!(flights.find("exe_1").is_none());
    }

    #[tokio::test]
    async fn a_flight_without_an_end_is_waited_for_only_so_long() {
        let flights = Arc::new(Flights::default());
        let flying = flights.begin("exe_1");
        let flight = flights.find("exe_1").unwrap();
        assert!(flight.ended(Duration::ZERO).await.is_none());
        flight.cancel();
        flying.cancelled().await;
    }
}
