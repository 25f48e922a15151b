//! The certificate of an installation's own authority, as clients import it. The gateways make it;
//! here it is only read, so that nothing of the key is ever near.

use chassis::Failure;

use crate::layout::Layout;

/// The certificate as PEM. Fails with 64 where there is none yet.
pub fn authority(layout: &Layout) -> Result<String, Failure> {
    let path = layout.ca_certificate();
    let attempted = format!("read the authority's certificate {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(pem) if pem.starts_with("-----BEGIN CERTIFICATE-----") => Ok(pem),
        Ok(_) => Err(Failure::configuration(
            attempted,
            "it holds no certificate",
            "restart a gateway: it writes the file anew",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::configuration(
            attempted,
            "there is none yet",
            "`bingo up` makes it with its first start; name the installation with --dir",
        )),
        Err(error) => Err(Failure::configuration(
            attempted,
            error,
            "run as a user who may read it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_authority_says_who_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let told = authority(&layout).unwrap_err();
        assert_eq!(told.exit, chassis::Exit::Configuration);
        assert!(told.to_string().contains("`bingo up` makes it"), "{told}");
        std::fs::create_dir(layout.tls()).unwrap();
        std::fs::write(layout.ca_certificate(), "rubbish").unwrap();
        assert!(authority(&layout).is_err());
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        std::fs::write(layout.ca_certificate(), pem).unwrap();
        assert_eq!(authority(&layout).unwrap(), pem);
    }
}
