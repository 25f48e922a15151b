//! Session tickets (RFC 8446 2.2, RFC 5077) that every thread, every gateway on a folder and the next
//! start can open: a client that comes back is spared the expensive half of the handshake wherever it
//! lands. rustls' own ticketer keeps its keys to itself, so the sealing is ours: AES-256-GCM-SIV (RFC
//! 8452) with a random nonce, under the newest of a few keys. A key seals six hours, opens twelve and
//! is then gone: who steals one reads no older session. Without a folder the keys live in memory.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use chassis::Failure;
use rustls::server::ProducesTickets;

use super::decision::{self, Seconds, TICKET_KEY_OPENS};
use super::folder::Folder;
use super::random;

pub(super) const FILE: &str = "ticket.keys";
const NAME_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const SECRET_BYTES: usize = 32;
/// Longer is no ticket of ours: a session with the longest of names is well below.
const TICKET_BYTES_MAX: usize = 16 * 1024;
/// The one that seals, the one before it, and one more after a clock that jumped.
const KEYS_MAX: usize = 3;

pub(super) struct Tickets {
    /// The newest first; it seals, all open.
    keys: ArcSwap<Vec<Key>>,
}

#[derive(Clone)]
struct Key {
    made: Seconds,
    /// Stands in each ticket and says which key opens it.
    name: [u8; NAME_BYTES],
    secret: [u8; SECRET_BYTES],
    sealing: Arc<RandomizedNonceKey>,
}

impl Tickets {
    /// With the folder's keys, made where there are none.
    pub(super) fn open(folder: Option<&Folder>, now: Seconds) -> Result<Self, Failure> {
        let tickets = Self {
            keys: ArcSwap::default(),
        };
        tickets.look(folder, now)?;
        Ok(tickets)
    }

    /// Adopts the keys that others made and makes one when it is due. Where the folder cannot be
    /// used, keys go on in memory, and the failure says so.
    pub(super) fn look(&self, folder: Option<&Folder>, now: Seconds) -> Result<(), Failure> {
        let kept = match folder {
            None => Ok(None),
            Some(folder) => renew(folder, now).map(Some),
        };
        let (keys, told) = match kept {
            Ok(Some(keys)) => (keys, Ok(())),
            Ok(None) => (renewed(self.keys.load().to_vec(), now)?, Ok(())),
            Err(failure) => (renewed(self.keys.load().to_vec(), now)?, Err(failure)),
        };
        let same = |old: &[Key]| old.iter().map(|k| k.name).eq(keys.iter().map(|k| k.name));
        if !same(&self.keys.load()) {
            self.keys.store(Arc::new(keys));
        }
        told
    }
}

fn renew(folder: &Folder, now: Seconds) -> Result<Vec<Key>, Failure> {
    let read = || Ok(parse(&folder.read(FILE)?.unwrap_or_default(), now));
    let keys: Vec<Key> = read()?;
    if !decision::is_ticket_key_due(keys.first().map(|key| key.made), now) {
        return Ok(keys);
    }
    let _lock = folder.lock()?;
    let keys: Vec<Key> = read()?;
    if !decision::is_ticket_key_due(keys.first().map(|key| key.made), now) {
        return Ok(keys);
    }
    let keys = renewed(keys, now)?;
    folder.write(FILE, 0o600, text(&keys).as_bytes())?;
    Ok(keys)
}

/// With a new key in front where one is due, without those that open nothing any more.
fn renewed(mut keys: Vec<Key>, now: Seconds) -> Result<Vec<Key>, Failure> {
    keys.retain(|key| decision::opens(key.made, now));
    if decision::is_ticket_key_due(keys.first().map(|key| key.made), now) {
        let name = random()?;
        let secret = random()?;
        let key = Key::new(now, name, secret).ok_or_else(|| {
            Failure::run_time(
                "make a key for session tickets",
                "it was refused",
                "try again",
            )
        })?;
        keys.insert(0, key);
    }
    keys.truncate(KEYS_MAX);
    Ok(keys)
}

impl Key {
    fn new(made: Seconds, name: [u8; NAME_BYTES], secret: [u8; SECRET_BYTES]) -> Option<Self> {
        let sealing = RandomizedNonceKey::new(&AES_256_GCM_SIV, &secret).ok()?;
        Some(Self {
            made,
            name,
            secret,
            sealing: Arc::new(sealing),
        })
    }
}

/// A line each: when it was made, its name and secret as hexadecimal digits.
fn text(keys: &[Key]) -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    keys.iter()
        .map(|key| format!("{} {} {}\n", key.made, hex(&key.name), hex(&key.secret)))
        .collect()
}

/// What can be read of it: a broken line costs its key, and clients a full handshake.
fn parse(text: &[u8], now: Seconds) -> Vec<Key> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| {
        let mut words = line.split(' ');
        let made = words.next()?.parse().ok()?;
        let key = Key::new(made, unhex(words.next()?)?, unhex(words.next()?)?)?;
        decision::opens(key.made, now).then_some(key)
    };
    text.lines().take(KEYS_MAX).filter_map(line).collect()
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_KEY_OPENS).unwrap_or(u32::MAX)
    }

    /// Name, nonce, sealed session and its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key
            .sealing
            .seal_in_place_append_tag(Aad::from(key.name), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_BYTES + sealed.len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.append(&mut sealed);
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let keys = self.keys.load();
        // The name is no secret: comparing it may take what time it likes.
        let key = keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .sealing
            .open_in_place(nonce, Aad::from(*name), &mut sealed)
            .ok()?;
        Some(opened.to_vec())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::super::decision::TICKET_KEY_SEALS;
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    #[test]
    fn a_ticket_opens_in_another_process_on_the_folder_and_after_one_rotation() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        let one = Tickets::open(Some(&folder), NOW).unwrap();
        let two = Tickets::open(Some(&folder), NOW + 1).unwrap();
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(two.decrypt(&ticket).unwrap(), b"session");

        two.look(Some(&folder), NOW + TICKET_KEY_SEALS).unwrap();
        let newer = two.encrypt(b"newer").unwrap();
        assert_ne!(newer[..NAME_BYTES], ticket[..NAME_BYTES]);
        assert_eq!(two.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(one.decrypt(&newer), None);
        one.look(Some(&folder), NOW + TICKET_KEY_SEALS).unwrap();
        assert_eq!(one.decrypt(&newer).unwrap(), b"newer");

        one.look(Some(&folder), NOW + TICKET_KEY_OPENS).unwrap();
        assert_eq!(one.decrypt(&ticket), None);
        assert_eq!(one.decrypt(&newer).unwrap(), b"newer");
    }

    #[test]
    fn a_ticket_that_was_changed_anywhere_opens_nothing() {
        let tickets = Tickets::open(None, NOW).unwrap();
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
        assert_eq!(tickets.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        assert_eq!(tickets.encrypt(&vec![0; TICKET_BYTES_MAX]), None);
    }

    #[test]
    fn broken_key_files_cost_full_handshakes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().to_owned());
        for broken in ["", "x", "1800000000 zz zz\n", "1800000000 00 00\nмир\n"] {
            folder.write(FILE, 0o600, broken.as_bytes()).unwrap();
            let tickets = Tickets::open(Some(&folder), NOW).unwrap();
            let ticket = tickets.encrypt(b"session").unwrap();
            let other = Tickets::open(Some(&folder), NOW).unwrap();
            assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        }
        let tickets = Tickets::open(Some(&folder), NOW).unwrap();
        drop(place);
        assert!(tickets.look(Some(&folder), NOW + TICKET_KEY_SEALS).is_err());
        let ticket = tickets.encrypt(b"in memory").unwrap();
        assert_eq!(tickets.decrypt(&ticket).unwrap(), b"in memory");
    }
}
