//! Floods of HTTP/2: frames that cost the gateway work and carry no request. The h2 library bounds
//! some of them (CONTINUATION, small DATA, resets before a request is taken up, and errors that make
//! us reset); this meter bounds the rest by looking at the frame heads that pass: PING, SETTINGS,
//! PRIORITY, WINDOW_UPDATE and unknown frames, and the paced kind of rapid reset, in which each
//! request is taken up and has cost a node something before it is cancelled.
//!
//! Budgets and not rates: a client that does useful work earns its control frames (a WINDOW_UPDATE for
//! what it took, a reset now and then), one that does nothing else runs dry. Pure: the caller brings
//! bytes and time.

use std::time::Instant;

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// Part of a budget that comes back each second.
const REFILL_PER_SECOND: f64 = 0.1;
/// Answered bytes that earn one control frame; the most careful clients send two for 16 KiB.
const BYTES_PER_CONTROL_FRAME: f64 = 1024.0;
/// What a request earns towards its own reset: whoever resets every second one is still served.
const RESETS_PER_REQUEST: f64 = 0.5;

// RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
/// On SETTINGS and PING: an answer to one of ours.
const ACK: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// Which budget ran dry: the key of its limit.
pub(super) type Flood = &'static str;

/// One connection's account.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes to pass before the next frame head: the preface at first, then payloads.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    /// So much of `head` is known.
    known: usize,
    control: Budget,
    resets: Budget,
}

/// So many at once, and a tenth of it back each second.
#[derive(Debug)]
pub(crate) struct Budget {
    max: f64,
    left: f64,
    at: Instant,
}

impl Meter {
    pub(super) fn new(control_frames_max: u32, resets_max: u32, now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            known: 0,
            control: Budget::new(control_frames_max, now),
            resets: Budget::new(resets_max, now),
        }
    }

    /// These bytes came from the client. Says which limit is hit.
    pub(super) fn came(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let length = self.skip.min(bytes.len());
                self.skip -= length;
                bytes = bytes.get(length..).unwrap_or_default();
                continue;
            }
            let length = (FRAME_HEAD_BYTES - self.known).min(bytes.len());
            let (now_known, rest) = bytes.split_at(length);
            if let Some(room) = self.head.get_mut(self.known..self.known + length) {
                room.copy_from_slice(now_known);
            }
            self.known += length;
            bytes = rest;
            if self.known == FRAME_HEAD_BYTES {
                self.known = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    /// So many bytes went to the client.
    pub(super) fn went(&mut self, bytes: usize) {
        self.control.earn(bytes as f64 / BYTES_PER_CONTROL_FRAME);
    }

    fn frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS => self.resets.earn(RESETS_PER_REQUEST),
            RST_STREAM => {
                if !self.resets.spend(now) {
                    return Err("h2_resets_max");
                }
            }
            // The library bounds both by what they carry.
            DATA | CONTINUATION => {}
            SETTINGS | PING if flags & ACK != 0 => {}
            _ => {
                if !self.control.spend(now) {
                    return Err("h2_control_frames_max");
                }
            }
        }
        Ok(())
    }
}

impl Budget {
    pub(crate) fn new(max: u32, now: Instant) -> Self {
        let max = f64::from(max);
        Self {
            max,
            left: max,
            at: now,
        }
    }

    pub(crate) fn earn(&mut self, amount: f64) {
        self.left = (self.left + amount).min(self.max);
    }

    fn spend(&mut self, now: Instant) -> bool {
        self.spend_all(1.0, now)
    }

    /// False once it has run dry.
    pub(crate) fn spend_all(&mut self, amount: f64, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.earn(seconds * self.max * REFILL_PER_SECOND);
        self.left -= amount;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(vec![0xff; payload]);
        bytes
    }

    /// A meter that has seen the preface.
    fn meter(control: u32, resets: u32) -> (Meter, Instant) {
        let now = Instant::now();
        let mut meter = Meter::new(control, resets, now);
        meter.came(&[0; PREFACE_BYTES], now).unwrap();
        (meter, now)
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.extend(frame(PING, 0, 8));
            all.extend(frame(DATA, 0, 300));
        }
        for cut in 1..40 {
            let now = Instant::now();
            let mut meter = Meter::new(3, 1, now);
            let bytes = [&[0; PREFACE_BYTES][..], &all].concat();
            let mut came = bytes.chunks(cut).map(|part| meter.came(part, now));
            let first = came.position(|result| result.is_err());
            // The fourth PING's head ends 936 bytes after the preface.
            assert_eq!(
                first,
                Some((PREFACE_BYTES + 3 * 326 + 9).div_ceil(cut) - 1),
                "{cut}"
            );
        }
    }

    #[test]
    fn each_kind_runs_its_own_budget_dry() {
        for (kind, flags, expected) in [
            (PING, 0, Err("h2_control_frames_max")),
            (PING, ACK, Ok(())),
            (SETTINGS, 0, Err("h2_control_frames_max")),
            (SETTINGS, ACK, Ok(())),
            (2, 0, Err("h2_control_frames_max")),
            (WINDOW_UPDATE, 0, Err("h2_control_frames_max")),
            (0xfa, 0, Err("h2_control_frames_max")),
            (RST_STREAM, 0, Err("h2_resets_max")),
            (HEADERS, 0, Ok(())),
            (DATA, 0, Ok(())),
        ] {
            let (mut meter, now) = meter(10, 10);
            let bytes = frame(kind, flags, 8).repeat(11);
            assert_eq!(meter.came(&bytes, now), expected, "{kind} {flags}");
        }
    }

    #[test]
    fn who_takes_answers_may_send_window_updates_for_ever() {
        let (mut meter, now) = meter(10, 10);
        for _ in 0..10_000 {
            meter.went(16 * 1024);
            let two = frame(WINDOW_UPDATE, 0, 4).repeat(2);
            assert_eq!(meter.came(&two, now), Ok(()));
        }
    }

    #[test]
    fn who_resets_every_second_request_is_served_and_who_resets_all_is_not() {
        let (mut polite, now) = meter(10, 10);
        let (mut rude, _) = meter(10, 10);
        let request = frame(HEADERS, 0, 50);
        let reset = frame(RST_STREAM, 0, 4);
        for _ in 0..1000 {
            let half = [&request[..], &request, &reset].concat();
            assert_eq!(polite.came(&half, now), Ok(()));
        }
        let whole = [&request[..], &reset].concat();
        let served = (0..1000).position(|_| rude.came(&whole, now).is_err());
        // Ten at once, and half a reset for each request.
        assert_eq!(served, Some(19));
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let (mut meter, now) = meter(10, 10);
        let ping = frame(PING, 0, 8);
        assert!(meter.came(&ping.repeat(11), now).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!(meter.came(&ping.repeat(10), later), Ok(()));
    }
}
