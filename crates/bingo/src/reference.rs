//! `bingo reference --dir docs/reference` (hidden): the reference pages, written from what the
//! program itself knows: its command line, the schemas of its configuration files, its metrics, its
//! OpenAPI document. A test fails when the pages in the repository are others.

mod command_line;
mod configuration;
mod http_api;
mod metrics;

use std::path::PathBuf;

use chassis::{Exit, Failure};

/// First lines of every page.
const GENERATED: &str =
    "<!-- Written by `bingo reference`; change the program, not this page. -->\n";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder to write the pages to
    #[arg(long, default_value = "docs/reference", value_name = "PATH")]
    dir: PathBuf,
}

/// One file of the reference.
struct Page {
    name: &'static str,
    text: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let folder = &arguments.dir;
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for page in pages()? {
        let path = folder.join(page.name);
        std::fs::write(&path, page.text).map_err(|error| failed(&path, &error))?;
    }
    Ok(Exit::Done)
}

fn pages() -> Result<Vec<Page>, Failure> {
    let page = |name, text: String| Page {
        name,
        text: format!("{GENERATED}{text}"),
    };
    let mut pages = vec![
        page("command-line.md", command_line::page()),
        page("configuration.md", configuration::page()),
        page("metrics.md", metrics::page()),
        page("http-api.md", http_api::page()),
    ];
    for (name, schema) in configuration::schemas() {
        let json = serde_json::to_string_pretty(&schema)
            .map_err(|error| Failure::run_time("write JSON", error, String::new()))?;
        pages.push(Page {
            name,
            text: format!("{json}\n"),
        });
    }
    Ok(pages)
}

fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let attempted = format!("write {}", path.display());
    Failure::run_time(attempted, error, "name another folder with --dir")
}

/// Text for one cell of a Markdown table.
fn cell(text: &str) -> String {
    let one_line: Vec<&str> = text.split_whitespace().collect();
    one_line.join(" ").replace('|', "\\|")
}
