//! What the e-mail of a student decides: the listen port and the log folder. Both formulas are the
//! vendor's, verified on fourteen published installations (contract.md section 2), so an
//! installation finds a swapped binary on the port and its logs in the folder where they were.

use std::path::PathBuf;

use sha1::{Digest, Sha1};

/// The vendor's default; an installation that still has it is warned.
pub const DEFAULT_EMAIL: &str = "test@example.com";

/// The folder that holds one log folder per e-mail.
const LOGS: &str = "/opt/bongo/logs";
/// Hex digits of the SHA-1 that name a log folder.
const FOLDER_DIGITS: usize = 10;

/// TCP port 1024..=33791: 1024 + (FNV-1a-32 of the bytes as written >> 17).
pub fn port_of(email: &str) -> u16 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = email.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    });
    // The shift leaves 15 bits, so the sum is below 2^16.
    1024 + (hash >> 17) as u16
}

/// `/opt/bongo/logs/<first ten hex digits of the SHA-1 of the bytes as written>`.
pub fn log_folder_of(email: &str) -> PathBuf {
    let digest = Sha1::digest(email.as_bytes());
    let mut name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    name.truncate(FOLDER_DIGITS);
    PathBuf::from(LOGS).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: [(&str, u16, &str); 6] = [
        ("test@example.com", 23777, "567159d622"),
        ("user@example.com", 29397, "63a7105692"),
        ("alice@example.org", 17607, "45a6b241a2"),
        ("bob@example.net", 1407, "261ff6da2b"),
        ("a@b.c", 32420, "e2d6a40c8b"),
        ("Test@example.com", 8339, "5e6a9140b9"),
    ];

    #[test]
    fn each_published_email_gives_its_port() {
        for (email, port, _) in PUBLISHED {
            assert_eq!(port_of(email), port, "{email}");
        }
    }

    #[test]
    fn each_published_email_gives_its_log_folder() {
        for (email, _, folder) in PUBLISHED {
            let expected = PathBuf::from("/opt/bongo/logs").join(folder);
            assert_eq!(log_folder_of(email), expected, "{email}");
        }
    }
}
