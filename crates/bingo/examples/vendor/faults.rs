//! What is wrong with it: the quota of requests, and the ways in which it fails. Each can be asked for;
//! which one it is is left to chance only where that is asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(10);
const BEATS_PER_SECOND: usize = 10;

#[derive(Clone, Copy)]
pub(crate) enum End {
    Exit,
    Panic,
    Leak,
    Bad,
}

impl End {
    pub(crate) fn of_name(name: &str) -> Self {
        match name {
            "exit" => Self::Exit,
            "panic" => Self::Panic,
            "leak" => Self::Leak,
            "bad" => Self::Bad,
            "any" => [Self::Exit, Self::Panic, Self::Leak, Self::Bad][chance() as usize % 4],
            _ => panic!("unknown end {name}"),
        }
    }
}

/// A number that nobody knows before: the clock's, below a second.
pub(crate) fn chance() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::from(now.subsec_micros())
}

pub(crate) struct Faults {
    /// Requests for each span.
    places: u32,
    /// The span of which places are given, and how many are.
    quota: Mutex<(Instant, u32)>,
    is_bad: AtomicBool,
    leak_mib_per_second: usize,
}

impl Faults {
    pub(crate) fn new(requests_per_second: u32, leak_mib_per_second: usize) -> Self {
        Self {
            places: (requests_per_second / 20).max(1),
            quota: Mutex::new((Instant::now(), 0)),
            is_bad: AtomicBool::new(false),
            leak_mib_per_second,
        }
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.is_bad.load(Ordering::Relaxed)
    }

    /// Waits for this request's place; false where it would have to wait too long.
    pub(crate) fn is_admitted(&self) -> bool {
        let now = Instant::now();
        let at = {
            let mut quota = self.quota.lock().unwrap();
            if quota.0 + SPAN <= now {
                *quota = (now, 0);
            }
            if quota.1 == self.places {
                *quota = (quota.0 + SPAN, 0);
            }
            if quota.0 > now + WAIT_MAX {
                return false;
            }
            quota.1 += 1;
            quota.0
        };
        std::thread::sleep(at.saturating_duration_since(now));
        true
    }

    pub(crate) fn end(&self, end: End) {
        match end {
            End::Exit => std::process::exit(0),
            End::Panic => die("we're all gonna die"),
            End::Bad => self.is_bad.store(true, Ordering::Relaxed),
            End::Leak => {
                let step = (self.leak_mib_per_second << 20) / BEATS_PER_SECOND;
                std::thread::spawn(move || leak(step));
            }
        }
    }
}

fn leak(step: usize) {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; step]);
        std::thread::sleep(Duration::from_secs(1) / BEATS_PER_SECOND as u32);
    }
}

/// As a panic of its language would.
pub(crate) fn die(why: &str) -> ! {
    eprintln!("panic: {why}\n\ngoroutine 1 [running]:");
    std::process::exit(2);
}
