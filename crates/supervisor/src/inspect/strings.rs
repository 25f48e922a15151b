//! Texts in a program that tell what it wants: paths, URLs, codes. As strings(1) finds them, and of
//! those the few that tell; in the order in which they stand.

use std::path::Path;

/// A larger program is read so far.
const BYTES_MAX: u64 = 256 << 20;
/// Shorter ones are accidents.
const LENGTH_MIN: usize = 6;
/// Longer ones are cut: some languages write texts without an end between them.
const LENGTH_MAX: usize = 80;
const TEXTS_MAX: usize = 40;
const MARKS: [&str; 7] = [
    "/opt/", "/etc/", "/var/", "http://", "https://", "code:  ", ".yaml",
];
/// What every program of some language carries.
const NOISE: [&str; 7] = [
    "/rustc/",
    "/usr/lib",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ld",
    "github.com",
    "/var/run/nscd",
];

/// The telling texts of a program; none where it cannot be read.
pub(super) fn telling(program: &Path) -> Vec<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(program).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        return Vec::new();
    }
    of(&bytes)
}

fn of(bytes: &[u8]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in bytes.split(|byte| !(b' '..=b'~').contains(byte)) {
        if text.len() < LENGTH_MIN || found.len() >= TEXTS_MAX {
            continue;
        }
        let text = String::from_utf8_lossy(text);
        let at = MARKS.iter().filter_map(|mark| text.find(mark)).min();
        let Some(part) = at.and_then(|at| text.get(at..)) else {
            continue;
        };
        let part: String = part.chars().take(LENGTH_MAX).collect();
        if !NOISE.iter().any(|noise| part.contains(noise)) && !found.contains(&part) {
            found.push(part);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_codes_are_told_and_accidents_are_not() {
        let bytes =
            b"\0\x01see /opt/a/config.yaml\0abcdefgh\0code:   xyz\n/etc/ssl/certs\0code:   xyz\0";
        assert_eq!(of(bytes), ["/opt/a/config.yaml", "code:   xyz"]);
    }
}
