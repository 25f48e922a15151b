//! What operators want of nodes, in a file that gateways share (`admin.state_file`): a node that is
//! drained at one gateway is drained at all of them within a moment, and still after their restart. The
//! file is read again and again instead of asking peers: it needs no addresses, no protocol and no
//! order of start. Written by rename, so nobody reads half of it; of two changes at the same moment the
//! later one stays.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ejection::Wanted;
use crate::worker::Shared;

/// How soon a gateway learns what was told another one.
const LOOK: Duration = Duration::from_millis(200);
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// By name of the node; one that is not there is to be active.
pub(crate) type Wants = BTreeMap<String, Wanted>;

/// What the file says; nothing where it is not there yet.
pub(crate) fn read(path: &Path) -> io::Result<Wants> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Wants::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Notes what is wanted of one node beside what the file says of others.
pub(crate) fn note(path: &Path, name: &str, wanted: Wanted) -> io::Result<()> {
    // One that cannot be read is written anew: it would be refused for ever otherwise.
    let mut wants = read(path).unwrap_or_default();
    wants.insert(name.to_owned(), wanted);
    let text = serde_json::to_vec(&wants).map_err(io::Error::other)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, &text)?;
    file.persist(path)?;
    Ok(())
}

/// Takes over, for ever, what was told other gateways.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut seen: Option<(PathBuf, Wants)> = None;
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(path) = shared.live().state_file.clone() else {
            continue;
        };
        let asked = path.clone();
        let found = tokio::task::spawn_blocking(move || read(&asked)).await;
        match found.map_err(io::Error::other).flatten() {
            Ok(wants) => {
                told = false;
                let now = (path, wants);
                if seen.as_ref() != Some(&now) {
                    shared.agree(&now.1);
                    seen = Some(now);
                }
            }
            Err(error) if !told => {
                told = true;
                let path = path.display();
                tracing::error!(%path, %error, "what operators want of nodes cannot be read");
            }
            Err(_) => {}
        }
    }
}
