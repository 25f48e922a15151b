//! A tar archive (POSIX.1-1988, ustar), compressed by gzip: texts under one folder. Written by hand:
//! a header of fixed fields needs no library.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

const BLOCK: usize = 512;
/// The name's field; longer ones are cut.
const NAME_BYTES_MAX: usize = 100;

/// Makes the archive, for its owner alone; an existing file stays and is an error.
pub(super) fn write(path: &Path, folder: &str, files: &[(String, String)]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut archive = GzEncoder::new(file, Compression::default());
    let now = jiff::Timestamp::now().as_second();
    for (name, text) in files {
        archive.write_all(&header(&format!("{folder}/{name}"), text.len(), now))?;
        archive.write_all(text.as_bytes())?;
        let rest = text.len().next_multiple_of(BLOCK) - text.len();
        archive.write_all(&vec![0; rest])?;
    }
    archive.write_all(&[0; 2 * BLOCK])?;
    archive.finish()?.sync_all()
}

/// Name, mode, user, group, size, time, checksum, kind, magic; numbers in octal.
fn header(name: &str, size: usize, time: i64) -> [u8; BLOCK] {
    let mut name = name.to_owned();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        let field = header.iter_mut().skip(at);
        field.zip(text.bytes()).for_each(|(to, from)| *to = from);
    };
    put(0, &name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{time:011o}\0"));
    // While the sum is made its own field is blank.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let mut put = |at: usize, text: &str| {
        let field = header.iter_mut().skip(at);
        field.zip(text.bytes()).for_each(|(to, from)| *to = from);
    };
    put(148, &format!("{sum:06o}\0 "));
    header
}

/// All of an archive as one text, for tests.
#[cfg(test)]
pub(super) fn read(bytes: &[u8]) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let mut archive = flate2::read::GzDecoder::new(bytes);
    archive.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        let long = "x".repeat(600);
        let files = [("one.txt", "one\n"), ("b/two.txt", &long), ("empty", "")];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
        write(&path, "top", &files).unwrap();
        assert!(write(&path, "top", &files).is_err(), "it is there already");
        let mut tar = std::process::Command::new("tar");
        let tar = tar.arg("xzf").arg(&path).arg("-C").arg(folder.path());
        assert!(tar.status().unwrap().success());
        for (name, text) in &files {
            let read = std::fs::read_to_string(folder.path().join("top").join(name));
            assert_eq!(read.unwrap(), *text, "{name}");
        }
    }
}
