//! Reading the command line, and saying what is wrong with it in the shape of all our errors: what was
//! attempted, why it failed, what to do. Clap's own texts have the parts and another shape.
//!
//! A wrong flag is wrong usage (exit 2). A wrong variable is a wrong environment (exit 64), which a
//! supervisor must not start again, and is named: clap speaks of the flag that nobody gave. All wrong
//! variables are told in one run. Help and version are left to clap.

use chassis::{Exit, Failure};
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};

use crate::command_line::Arguments;

/// The arguments of this process; ends it where they ask for help.
pub(crate) fn parse() -> Result<Arguments, Failure> {
    let given: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let mut command = Arguments::command();
    let mut faults = Vec::new();
    loop {
        let parsed = command.clone().try_get_matches();
        let parsed = parsed.and_then(|matches| Arguments::from_arg_matches(&matches));
        let error = match (parsed, Failure::all(faults.clone())) {
            (Ok(arguments), None) => return Ok(arguments),
            (Ok(arguments), Some(failure)) => {
                // The variables are blanked; whatever else is wrong is told in the same run.
                let rest = arguments.configuration_failure();
                let all = Failure::all([failure.clone()].into_iter().chain(rest));
                return Err(all.unwrap_or(failure));
            }
            (Err(error), _) => error,
        };
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            error.exit();
        }
        let Some(variable) = variable_of(&command, &error, &given) else {
            let last = of_command_line(&command, &error, &given);
            let all = faults.into_iter().chain([last.clone()]);
            return Err(Failure::all(all).unwrap_or(last));
        };
        faults.push(of_variable(&variable, &error));
        // Without it the next fault shows.
        command = without(command, &variable);
    }
}

/// The variable whose value is refused; `None` where the value was an argument.
fn variable_of(command: &Command, error: &clap::Error, given: &[String]) -> Option<String> {
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let is_refused = |arg: &&Arg| {
        let flag = format!("--{}", arg.get_long().unwrap_or_default());
        let is_given = given.iter().any(|argument| {
            let name = argument
                .split_once('=')
                .map_or(argument.as_str(), |(n, _)| n);
            name == flag
        });
        arg.to_string() == *refused && !is_given
    };
    // An argument that was not built cannot write its own name.
    let mut command = command.clone();
    command.build();
    let mut all = command
        .get_subcommands()
        .flat_map(Command::get_arguments)
        .filter(is_refused);
    let variable = all.find_map(|arg| arg.get_env())?;
    std::env::var_os(variable)?;
    Some(variable.to_string_lossy().into_owned())
}

/// The same command line, blind for one variable.
fn without(command: Command, variable: &str) -> Command {
    command.mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| match arg.get_env() {
            Some(name) if name == variable => arg.env(Resettable::Reset),
            _ => arg,
        })
    })
}

fn of_variable(variable: &str, error: &clap::Error) -> Failure {
    let Told { why, mut help } = Told::of(error);
    help.push(format!("correct {variable} or unset it"));
    Failure::configuration(format!("read {variable}"), why, help.join("; "))
}

fn of_command_line(command: &Command, error: &clap::Error, given: &[String]) -> Failure {
    let Told { why, mut help } = Told::of(error);
    let subcommand = given.get(1).filter(|name| {
        let known = command.get_subcommands().map(Command::get_name);
        known.into_iter().any(|known| known == name.as_str())
    });
    let words = subcommand.map_or(String::new(), |name| format!("{name} "));
    help.push(format!("`bingo {words}--help` says what it takes"));
    Failure::new(Exit::Usage, "read the command line", why, help.join("; "))
}

/// What an error of clap's says.
struct Told {
    why: String,
    help: Vec<String>,
}

impl Told {
    fn of(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut told = Self {
            why: String::new(),
            help: Vec::new(),
        };
        for line in text.lines().map(str::trim) {
            let line = line.strip_prefix("error: ").unwrap_or(line);
            let values = line
                .strip_prefix("[possible values: ")
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(values) = values {
                told.help.push(format!("one of {values}"));
            } else if let Some(tip) = line.strip_prefix("tip: ") {
                told.help.push(tip.to_owned());
            } else if let Some(usage) = line.strip_prefix("Usage: ") {
                told.help.push(format!("write {usage}"));
            } else if !line.is_empty() && !line.starts_with("For more information") {
                let separator = if told.why.is_empty() { "" } else { " " };
                told.why.push_str(&format!("{separator}{line}"));
            }
        }
        told
    }
}
