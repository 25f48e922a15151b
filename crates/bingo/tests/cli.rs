//! The command line from outside, with the real binary: every command's text and exit code, faulty
//! configurations, precedence, secrets, the log file, and the reference pages.

mod cli {
    mod commands;
    mod configuration;
    mod contradictions;
    mod log_file;
    mod reference;
    mod rig;
    mod secrets;
    mod top;
    mod traces;
}
