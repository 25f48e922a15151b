//! Where the certificate comes from, looked at when a gateway starts and about once a second after
//! that. Files are read and checked. In an authority's folder whoever is first makes what is missing,
//! under the lock; the others adopt it.
//!
//! An authority is made only when a gateway starts: people import it, so nothing that happens while a
//! gateway runs (a clock that jumps, a disk that loses a file) may replace it. Gateways on one folder
//! are meant to have the same names; with different ones each keeps its own certificate.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use chassis::Failure;
use rustls::crypto::CryptoProvider;

use super::authority::Authority;
use super::decision::{Seconds, Validity};
use super::folder::{Folder, read_bounded};
use super::random;
use super::served::{Content, Fault, Served};
use super::settings::{Name, ValidTls};

const AUTHORITY_FILE: &str = "ca.pem";
const AUTHORITY_KEY_FILE: &str = "ca.key";
const SERVED_FILE: &str = "server.pem";
/// Files of the folder that nobody but the gateways' account may read.
pub(super) const SECRET_FILES: [&str; 4] = [
    AUTHORITY_KEY_FILE,
    SERVED_FILE,
    super::RESET_KEY_FILE,
    super::tickets::FILE,
];

/// Looks at one source again and again.
pub(super) struct Source {
    settings: ValidTls,
    provider: Arc<CryptoProvider>,
    looked: Option<Looked>,
}

/// The folder as it was when it was last found in order.
struct Looked {
    files: Files,
    authority: Validity,
}

#[derive(PartialEq, Eq)]
struct Files {
    authority: Option<Vec<u8>>,
    served: Option<Vec<u8>>,
}

impl Source {
    pub(super) fn new(settings: ValidTls, provider: Arc<CryptoProvider>) -> Self {
        Self {
            settings,
            provider,
            looked: None,
        }
    }

    /// Where authority, tickets and the key of QUIC's resets are kept.
    pub(super) fn folder(&self) -> Option<Folder> {
        match &self.settings {
            ValidTls::Authority { folder, .. } => Some(Folder::new(folder.clone())),
            ValidTls::Files { .. } => None,
        }
    }

    /// Whether somebody else must renew the certificate.
    pub(super) fn is_of_files(&self) -> bool {
        matches!(self.settings, ValidTls::Files { .. })
    }

    /// What to serve when a gateway starts.
    pub(super) fn open(&mut self, now: Seconds) -> Result<Served, Failure> {
        match self.settings.clone() {
            ValidTls::Files { certificate, key } => {
                read(&certificate, &key, None, &self.provider, now).and_then(|served| {
                    served
                        .ok_or_else(|| Failure::run_time("read the certificate", "it is empty", ""))
                })
            }
            ValidTls::Authority { folder, names, .. } => {
                let folder = Folder::new(folder);
                folder.create()?;
                let _lock = folder.lock()?;
                for secret in SECRET_FILES {
                    folder.close_to_others(secret);
                }
                self.settle(&folder, &names, now, true)
            }
        }
    }

    /// What to serve instead of `current`; `None` where that stays.
    pub(super) fn look(
        &mut self,
        current: &Served,
        now: Seconds,
    ) -> Result<Option<Served>, Failure> {
        match self.settings.clone() {
            ValidTls::Files { certificate, key } => read(
                &certificate,
                &key,
                Some(&current.content),
                &self.provider,
                now,
            ),
            ValidTls::Authority { folder, names, .. } => {
                self.look_at_folder(&Folder::new(folder), &names, current, now)
            }
        }
    }

    fn look_at_folder(
        &mut self,
        folder: &Folder,
        names: &BTreeSet<Name>,
        current: &Served,
        now: Seconds,
    ) -> Result<Option<Served>, Failure> {
        let files = Files::read(folder)?;
        let in_order = self.looked.as_ref().is_some_and(|looked| {
            let due = current.validity.is_certificate_due(now, looked.authority);
            looked.files == files && !due
        });
        if in_order {
            return Ok(None);
        }
        let authority = files.authority().map_err(|why| broken(folder, &why))?;
        if let Some(served) = self.fitting(&files, &authority, names, now) {
            let changed = served.content != current.content;
            self.remember(files, &authority);
            return Ok(changed.then_some(served));
        }
        if self.fits(current, &authority, names, now) {
            self.remember(files, &authority);
            return Ok(None);
        }
        let _lock = folder.lock()?;
        self.settle(folder, names, now, false).map(Some)
    }

    /// Under the lock: what is in the folder, or what is made now.
    fn settle(
        &mut self,
        folder: &Folder,
        names: &BTreeSet<Name>,
        now: Seconds,
        starts: bool,
    ) -> Result<Served, Failure> {
        let files = Files::read(folder)?;
        let (mut authority, mut new) = match files.authority() {
            Ok(authority) if !(starts && authority.validity.is_authority_due(now)) => {
                (authority, None)
            }
            Ok(_) => make_authority(names, now, Some("the old one is too near its end"))?,
            Err(_) if starts && files.authority.is_none() => make_authority(names, now, None)?,
            Err(why) if starts => make_authority(names, now, Some(&why))?,
            Err(why) => return Err(broken(folder, &why)),
        };
        if let Some(served) = self.fitting(&files, &authority, names, now) {
            publish(folder, &authority)?;
            self.remember(files, &authority);
            return Ok(served);
        }
        let mut issued = self.issue(&authority, names, now);
        if let (Err(why), true) = (&issued, starts) {
            (authority, new) = make_authority(names, now, Some(why))?;
            issued = self.issue(&authority, names, now);
        }
        // Nothing was written yet: names that no authority can speak for cost nobody an import.
        let served = issued.map_err(|why| {
            Failure::configuration(
                format!("issue a certificate in {}", folder.path_of("").display()),
                why,
                "use names that clients accept in tls.names; a gateway that starts makes an \
                 authority for them, to be imported again",
            )
        })?;
        if let Some(new) = new {
            new.write(folder)?;
        }
        publish(folder, &authority)?;
        folder.write(SERVED_FILE, 0o600, &served.content.key)?;
        let list: Vec<String> = names.iter().map(Name::to_string).collect();
        tracing::info!(names = list.join(" "), "a certificate was issued");
        self.remember(Files::read(folder)?, &authority);
        Ok(served)
    }

    /// The certificate in the folder, if it can be served as it is.
    fn fitting(
        &self,
        files: &Files,
        authority: &Authority,
        names: &BTreeSet<Name>,
        now: Seconds,
    ) -> Option<Served> {
        let bytes = files.served.clone()?;
        let content = Content {
            certificate: bytes.clone(),
            key: bytes,
        };
        let served = Served::parse(content, &self.provider).ok()?;
        self.fits(&served, authority, names, now).then_some(served)
    }

    fn fits(
        &self,
        served: &Served,
        authority: &Authority,
        names: &BTreeSet<Name>,
        now: Seconds,
    ) -> bool {
        served.names == *names
            && !served.validity.is_certificate_due(now, authority.validity)
            && served
                .verify(&authority.certificate, &self.provider, now)
                .is_ok()
    }

    fn issue(
        &self,
        authority: &Authority,
        names: &BTreeSet<Name>,
        now: Seconds,
    ) -> Result<Served, String> {
        let content = authority
            .issue(names, now)
            .map_err(|error| error.to_string())?;
        let served = Served::parse(content, &self.provider).map_err(|fault| fault.why)?;
        served.verify(&authority.certificate, &self.provider, now)?;
        Ok(served)
    }

    fn remember(&mut self, files: Files, authority: &Authority) {
        self.looked = Some(Looked {
            files,
            authority: authority.validity,
        });
    }
}

impl Files {
    fn read(folder: &Folder) -> Result<Self, Failure> {
        Ok(Self {
            authority: folder.read(AUTHORITY_KEY_FILE)?,
            served: folder.read(SERVED_FILE)?,
        })
    }

    fn authority(&self) -> Result<Authority, String> {
        let bytes = self.authority.as_deref().ok_or("it is gone")?;
        Authority::parse(bytes)
    }
}

/// An authority that is not in the folder yet.
struct New {
    text: String,
    /// Why the one that was there is not used any more.
    instead: Option<String>,
}

fn make_authority(
    names: &BTreeSet<Name>,
    now: Seconds,
    instead: Option<&str>,
) -> Result<(Authority, Option<New>), Failure> {
    let failed =
        |why: String| Failure::run_time("make a certificate authority", why, "check tls.names");
    let tag: String = random::<4>()?.iter().map(|b| format!("{b:02x}")).collect();
    let text = Authority::make(names, &tag, now).map_err(|error| failed(error.to_string()))?;
    let authority = Authority::parse(text.as_bytes()).map_err(failed)?;
    let instead = instead.map(str::to_owned);
    Ok((authority, Some(New { text, instead })))
}

impl New {
    fn write(&self, folder: &Folder) -> Result<(), Failure> {
        folder.write(AUTHORITY_KEY_FILE, 0o600, self.text.as_bytes())?;
        let path = folder.path_of(AUTHORITY_FILE);
        let path = path.display();
        match &self.instead {
            None => tracing::info!(certificate = %path, "a certificate authority was made"),
            Some(why) => tracing::warn!(
                certificate = %path,
                why,
                "a new certificate authority was made; import it where the old one was imported"
            ),
        }
        Ok(())
    }
}

/// For import: everybody may read it.
fn publish(folder: &Folder, authority: &Authority) -> Result<(), Failure> {
    let published = folder.read(AUTHORITY_FILE)?;
    if published.as_deref() == Some(authority.pem.as_bytes()) {
        return Ok(());
    }
    folder.write(AUTHORITY_FILE, 0o644, authority.pem.as_bytes())
}

fn broken(folder: &Folder, why: &str) -> Failure {
    Failure::configuration(
        format!(
            "use the authority in {}",
            folder.path_of(AUTHORITY_KEY_FILE).display()
        ),
        why,
        "put the file back, or start a gateway anew: it makes an authority, to be imported again",
    )
}

/// The certificate in files; `None` where they are as they were.
fn read(
    certificate: &Path,
    key: &Path,
    served: Option<&Content>,
    provider: &CryptoProvider,
    now: Seconds,
) -> Result<Option<Served>, Failure> {
    let refused = |faults: Vec<Fault>| {
        let failures = faults.into_iter().map(|fault| {
            let attempted = match fault.of_key {
                true => format!("use tls.key: {}", key.display()),
                false => format!("use tls.certificate: {}", certificate.display()),
            };
            Failure::configuration(attempted, fault.why, fault.remedy)
        });
        let unknown = || Failure::run_time("read the certificate", "it is not known why", "");
        Failure::all(failures).unwrap_or_else(unknown)
    };
    let content = content(certificate, key).map_err(refused)?;
    if served == Some(&content) {
        return Ok(None);
    }
    usable(content, provider, now).map(Some).map_err(refused)
}

/// All that is wrong with the files now.
pub(super) fn faults(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
    now: Seconds,
) -> Vec<Fault> {
    let usable = content(certificate, key).and_then(|content| usable(content, provider, now));
    usable.err().unwrap_or_default()
}

fn content(certificate: &Path, key: &Path) -> Result<Content, Vec<Fault>> {
    let read = |path: &Path, of_key| {
        read_bounded(path).map_err(|error| Fault {
            of_key,
            why: format!("it cannot be read: {error}"),
            remedy: "name a file that the gateway's account may read",
        })
    };
    match (read(certificate, false), read(key, true)) {
        (Ok(certificate), Ok(key)) => Ok(Content { certificate, key }),
        (certificate, key) => Err([certificate.err(), key.err()]
            .into_iter()
            .flatten()
            .collect()),
    }
}

fn usable(content: Content, provider: &CryptoProvider, now: Seconds) -> Result<Served, Vec<Fault>> {
    let served = Served::parse(content, provider).map_err(|fault| vec![fault])?;
    if served.validity.contains(now) {
        return Ok(served);
    }
    let why = if now > served.validity.not_after {
        "it has expired"
    } else {
        "it is not valid yet"
    };
    Err(vec![Fault {
        of_key: false,
        why: why.to_owned(),
        remedy: "have it renewed, and check this machine's clock",
    }])
}
