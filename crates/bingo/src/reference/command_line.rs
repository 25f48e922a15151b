//! `command-line.md`: every command with its arguments, defaults and environment variables.

use clap::{Arg, Command, CommandFactory};

use super::cell;

pub(super) fn page() -> String {
    let mut root = crate::command_line::Arguments::command();
    root.build();
    let mut page = String::from(
        "# Command line\n\n\
         A flag goes before its environment variable, that before the file, that before the default.\n\
         Errors are `error: what: why` with `help: remedy` under it, on stderr. Exit codes: 0 done, \
         1 failed at run\ntime, 2 wrong usage, 64 wrong configuration or environment, 130 interrupted; \
         `bingo status`: 0 ready,\n1 starting or degraded, 3 not running. Without a command `bingo` \
         prints `Hello world`.\n",
    );
    for command in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        page.push_str(&section(command.get_name(), command));
        // `help` has every command below it once more.
        let below = command.get_subcommands();
        let below = below.filter(|c| command.get_name() != "help" && c.get_name() != "help");
        for below in below.filter(|c| !c.is_hide_set()) {
            let name = format!("{} {}", command.get_name(), below.get_name());
            page.push_str(&section(&name, below));
        }
    }
    page
}

fn section(name: &str, command: &Command) -> String {
    let about = command.get_about().map_or(String::new(), |a| a.to_string());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let mut text = format!("\n## {name}\n\n{about}.\n\n```text\n{usage}\n```\n");
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let rows: Vec<String> = command.get_arguments().filter(shown).map(row).collect();
    if !rows.is_empty() {
        text.push_str("\n| argument | default | environment | what |\n|---|---|---|---|\n");
        text.push_str(&rows.concat());
    }
    text
}

fn row(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let values: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| match arg.is_positional() {
            true => name.to_string(),
            false => format!(" {name}"),
        })
        .collect();
    let name = arg
        .get_long()
        .map_or(String::new(), |name| format!("--{name}"));
    let values = if takes_value {
        values.concat()
    } else {
        String::new()
    };
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let defaults = if takes_value {
        defaults.join(", ")
    } else {
        String::new()
    };
    let variable = arg.get_env().map_or(String::new(), |name| {
        format!("`{}`", name.to_string_lossy())
    });
    format!(
        "| `{name}{values}` | {} | {variable} | {} |\n",
        cell(&defaults),
        cell(&help(arg)),
    )
}

fn help(arg: &Arg) -> String {
    let help = arg
        .get_help()
        .map_or(String::new(), |help| help.to_string());
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|word| word.get_name().to_owned())
        .collect();
    match words.is_empty() {
        true => help,
        false => format!("{help}: {}", words.join(", ")),
    }
}
