//! A bounded queue from many tasks to one thread.
//!
//! Sending waits as a future while the queue is full; the thread takes all that is there at once and blocks while there
//! is nothing. A channel of tokio cannot wait with a time-out on a thread, one of the standard library cannot wait for
//! room as a future.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    room: Semaphore,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// How many items the thread waits for; none if it does not wait.
    wanted: Option<usize>,
    nudged: bool,
}

impl<T> State<T> {
    /// Whether the thread must be woken for what is here; it is then taken to be awake.
    fn wakes(&mut self) -> bool {
        self.wanted.take_if(|wanted| self.items.len() >= *wanted).is_some()
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// There are items.
    Items,
    /// Nothing came in time.
    Nothing,
    /// Nothing came, but somebody asked the thread to look up.
    Nudged,
    /// Nothing is there and nothing will come.
    Closed,
}

/// The queue is closed; the item comes back.
#[derive(Debug)]
pub(crate) struct Closed<T>(pub(crate) T);

impl<T> Queue<T> {
    /// A queue for at most `items_max` items.
    pub(crate) fn new(items_max: usize) -> Queue<T> {
        Queue {
            state: Mutex::new(State { items: VecDeque::new(), closed: false, wanted: None, nudged: false }),
            arrived: Condvar::new(),
            room: Semaphore::new(items_max.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    /// Adds an item as soon as there is room. Dropping the future before that adds nothing.
    pub(crate) async fn send(&self, item: T) -> Result<(), Closed<T>> {
        let Ok(permit) = self.room.acquire().await else { return Err(Closed(item)) };
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed(item));
        }
        permit.forget();
        state.items.push_back(item);
        let wake = state.wakes();
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves up to `most` items to `into` without waiting; answers how many.
    pub(crate) fn take(&self, into: &mut Vec<T>, most: usize) -> usize {
        let mut state = self.state.lock();
        let number = state.items.len().min(most);
        into.extend(state.items.drain(..number));
        drop(state);
        self.room.add_permits(number);
        number
    }

    /// Blocks the thread until there are items, at most for `patience` if that is given.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Wait {
        self.wait_for(1, patience)
    }

    /// Blocks the thread until there are `wanted` items or somebody nudges it, at most for `patience` if that is given.
    /// Each wake-up costs about as much as a call: who has time lets some come together.
    pub(crate) fn wait_for(&self, wanted: usize, patience: Option<Duration>) -> Wait {
        let mut state = self.state.lock();
        let mut late = false;
        loop {
            if state.items.len() >= wanted || (late && !state.items.is_empty()) {
                return Wait::Items;
            }
            if std::mem::take(&mut state.nudged) {
                return Wait::Nudged;
            }
            if state.closed {
                return Wait::Closed;
            }
            if late {
                return Wait::Nothing;
            }
            state.wanted = Some(wanted);
            match patience {
                None => self.arrived.wait(&mut state),
                Some(patience) => late = self.arrived.wait_for(&mut state, patience).timed_out(),
            }
            state.wanted = None;
        }
    }

    /// Ends the wait that is on, or the next one.
    pub(crate) fn nudge(&self) {
        let mut state = self.state.lock();
        state.nudged = true;
        let wake = state.wanted.take().is_some();
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Whether an item waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Takes no more items. Those inside are still taken out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn items_come_out_in_the_order_they_went_in() {
        let queue = Queue::new(8);
        for item in 0..5 {
            queue.send(item).await.unwrap();
        }
        let mut items = Vec::new();
        assert_eq!(queue.take(&mut items, 3), 3);
        assert_eq!(queue.take(&mut items, 100), 2);
        assert_eq!(items, [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_senders_wait_until_there_is_room() {
        let queue = Arc::new(Queue::new(1));
        queue.send(1).await.unwrap();
        let sender = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.send(2).await.is_ok() }
        });
        tokio::task::yield_now().await;
        let mut items = Vec::new();
        assert_eq!(queue.take(&mut items, 10), 1);
        assert!(sender.await.unwrap());
        assert_eq!(queue.take(&mut items, 10), 1);
        assert_eq!(items, [1, 2]);
    }

    #[tokio::test]
    async fn who_waits_for_several_items_is_woken_by_the_last_of_them_or_by_a_nudge() {
        let queue = Arc::new(Queue::new(8));
        let wait = |queue: &Arc<Queue<i32>>| {
            let queue = Arc::clone(queue);
            std::thread::spawn(move || queue.wait_for(3, None))
        };

        let waiter = wait(&queue);
        for item in 0..3 {
            queue.send(item).await.unwrap();
        }
        assert_eq!(waiter.join().unwrap(), Wait::Items);
        queue.take(&mut Vec::new(), 2);

        let waiter = wait(&queue);
        queue.nudge();
        assert_eq!(waiter.join().unwrap(), Wait::Nudged);
        // What is there is not withheld from who has waited long enough.
        assert_eq!(queue.wait_for(3, Some(Duration::from_millis(1))), Wait::Items);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_out_what_it_has_and_takes_no_more() {
        let queue = Queue::new(8);
        queue.send(1).await.unwrap();
        queue.close();
        assert!(queue.send(2).await.is_err());
        assert_eq!(queue.wait(None), Wait::Items);
        queue.take(&mut Vec::new(), 10);
        assert_eq!(queue.wait(None), Wait::Closed);
    }
}
