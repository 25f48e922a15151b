//! Seats for the connections of a small server, such as the admin listener. Where all are taken, a new
//! connection gets the seat of the one that has been idle for longest, or else of the oldest: so
//! connections that do nothing, or never read, keep nobody out, least of all a probe by which somebody
//! decides whether this process lives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// All seats of one server.
#[derive(Clone, Debug)]
pub struct Seats {
    taken: Arc<Mutex<Taken>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By arrival.
    seats: BTreeMap<u64, Occupied>,
}

#[derive(Debug)]
struct Occupied {
    /// Requests that are being answered.
    requests: usize,
    given_up: Arc<Notify>,
}

/// The seat of one connection, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    number: u64,
    given_up: Arc<Notify>,
    /// Somebody else had to give a seat up for it.
    pub displaces: bool,
}

/// One request on a seat, until it is dropped; to be kept with the answer's body.
#[derive(Debug)]
pub struct Busy {
    seats: Seats,
    number: u64,
}

impl Seats {
    pub fn new(max: usize) -> Self {
        Self {
            taken: Arc::default(),
            max,
        }
    }

    /// A seat, always: at most one more than there are is taken for a moment.
    pub fn take(&self) -> Seat {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let displaces = taken.seats.len() >= self.max;
        if displaces {
            let idle = taken.seats.iter().find(|(_, one)| one.requests == 0);
            let loser = idle.or_else(|| taken.seats.iter().next());
            if let Some(number) = loser.map(|(number, _)| *number)
                && let Some(one) = taken.seats.remove(&number)
            {
                one.given_up.notify_one();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let given_up = Arc::new(Notify::new());
        let occupied = Occupied {
            requests: 0,
            given_up: Arc::clone(&given_up),
        };
        taken.seats.insert(number, occupied);
        Seat {
            seats: self.clone(),
            number,
            given_up,
            displaces,
        }
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Occupied)) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = taken.seats.get_mut(&number) {
            change(one);
        }
    }
}

impl Seat {
    /// Ends when the connection has to go.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// A request begins.
    pub fn busy(&self) -> Busy {
        self.seats.change(self.number, |one| one.requests += 1);
        Busy {
            seats: self.seats.clone(),
            number: self.number,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = &self.seats.taken;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.seats.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let less = |one: &mut Occupied| one.requests = one.requests.saturating_sub(1);
        self.seats.change(self.number, less);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_to_go(seat: &Seat) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(seat.given_up()).poll(&mut context).is_ready()
    }

    #[test]
    fn the_oldest_idle_one_gives_its_seat_up_and_one_that_is_answered_does_not() {
        let seats = Seats::new(2);
        let (answered, idle) = (seats.take(), seats.take());
        let busy = answered.busy();
        assert!(!idle.displaces);
        let third = seats.take();
        assert!(third.displaces && has_to_go(&idle) && !has_to_go(&answered));
        drop((idle, busy));
        let fourth = seats.take();
        assert!(has_to_go(&answered) && !has_to_go(&third) && !has_to_go(&fourth));
    }

    #[test]
    fn where_all_are_answered_the_oldest_goes_and_a_free_seat_displaces_nobody() {
        let seats = Seats::new(1);
        let first = seats.take();
        let _busy = first.busy();
        let second = seats.take();
        assert!(second.displaces && has_to_go(&first));
        drop((first, second));
        assert!(!seats.take().displaces);
    }
}
