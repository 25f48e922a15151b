//! What the e-mail decides: the port and the folder of the log; and the few keys of the file that are
//! read, by their lines alone. SHA-1 is written out (RFC 3174), to stand on nothing.

pub(crate) struct Settings {
    pub(crate) email: String,
    /// `HOST:PORT` of the first host.
    pub(crate) database: String,
}

impl Settings {
    pub(crate) fn of(text: &str) -> Self {
        let value = |key: &str, default: &str| {
            let found = text.lines().find_map(|line| {
                let line = line.trim_start_matches([' ', '-']);
                line.strip_prefix(key)?.strip_prefix(':')
            });
            let value = found.unwrap_or(default).trim();
            value.trim_matches(['"', '\'']).to_owned()
        };
        Self {
            email: value("student_email", "test@example.com"),
            database: format!(
                "{}:{}",
                value("address", "localhost"),
                value("port", "5432")
            ),
        }
    }
}

/// 1024 + (FNV-1a of 32 bits >> 17).
pub(crate) fn port(email: &str) -> u16 {
    let hash = email.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    1024 + u16::try_from(hash >> 17).unwrap()
}

/// The first ten hexadecimal digits of the SHA-1.
pub(crate) fn folder(email: &str) -> String {
    let mut state = [
        0x6745_2301_u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let mut message = email.as_bytes().to_vec();
    let bits = message.len() as u64 * 8;
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if message.len() - email.len() < 9 {
        message.resize(message.len() + 64, 0);
    }
    let end = message.len();
    message[end - 8..].copy_from_slice(&bits.to_be_bytes());
    for block in message.chunks(64) {
        digest(&mut state, block);
    }
    let text: String = state.iter().map(|word| format!("{word:08x}")).collect();
    text[..10].to_owned()
}

fn digest(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
        *word = u32::from_be_bytes(bytes.try_into().unwrap());
    }
    for at in 16..80 {
        let mixed = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
        words[at] = mixed.rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (at, word) in words.iter().enumerate() {
        let (mixed, constant) = match at {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6_u32),
        };
        let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e);
        let next = next.wrapping_add(constant).wrapping_add(*word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(more);
    }
}
