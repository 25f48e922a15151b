//! The secrets of an installation, to be taken out of whatever is shown.

use std::path::PathBuf;

use chassis::masking::{MASK, masked};

use crate::layout::Layout;

/// A shorter one would be found by chance, and is none.
const BYTES_MIN: usize = 6;

/// Each as it stands in its file.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// What this user may read of them: what it may not read it cannot show.
    pub(super) fn of(layout: &Layout) -> Self {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let whole = [
            layout.service_password(),
            layout.existing_password(),
            layout.superuser_password(),
            layout.admin_token(),
        ];
        let mut all: Vec<String> = whole.map(read).to_vec();
        // PostgreSQL documentation, "The Password File": the fifth field, `:` and `\` escaped.
        let pgpass = read(layout.pgpass());
        let fields = pgpass.lines().filter_map(|line| line.splitn(5, ':').nth(4));
        all.extend(fields.map(|field| field.replace("\\:", ":").replace("\\\\", "\\")));
        let folder = layout.run().join("exec");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = read(entry.path());
            let values = text.lines().filter_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == "password").then(|| value.trim().trim_matches(['"', '\'']))
            });
            all.extend(values.map(str::to_owned));
        }
        let mut all: Vec<String> = all.iter().map(|text| text.trim().to_owned()).collect();
        all.retain(|secret| secret.len() >= BYTES_MIN);
        // The longest first: one may be the beginning of another.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    pub(super) fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASK);
            }
        }
        masked(&text).into_owned()
    }
}
