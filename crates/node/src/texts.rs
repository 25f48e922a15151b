//! The vendor's texts, to the letter (contract.md sections 1 and 3): scripts and testers look for
//! them. The tests hold their sizes; a changed blank would be a broken contract.

/// Body of `GET /`: 336 bytes, one final newline.
pub(crate) const INDEX: &str = "\
Hi. Accept my congratulations. You were able to launch this app.
In the text of the task, you were given a list of urls and requirements for their work.
Get on with it. You can do it, you'll do it.
--------------------------------------------------
code:         index_page_is_awesome
--------------------------------------------------
";

/// Body of `GET /ping` while the process serves.
pub(crate) const HEALTHY: &str = "pong";
/// Body of `GET /ping` while it drains.
pub(crate) const UNHEALTHY: &str = "I feel bad";

/// The vendor's reward for a fast start; ours always starts fast.
const FAST_START: &str = "\
Congratulations.
You were able to figure out why
the application is slow to start and fix it.
Here's a secret code that confirms that you did it.
--------------------------------------------------
code:         google_dns_is_not_http
--------------------------------------------------
";

const STARTED: &str = "\
My congratulations.
You were able to start the server.
Here's a secret code that confirms that you did it.
--------------------------------------------------
code:         yoohoo_server_launched
--------------------------------------------------
";

/// What `run_server` prints to stdout once its listener accepts: after a fast start the text about
/// it, then the one about the start. The line with address and process id is the command's own.
pub fn startup_text(fast: bool) -> String {
    let reward = if fast { FAST_START } else { "" };
    format!("{reward}{STARTED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_page_has_its_336_bytes_and_one_final_newline() {
        assert_eq!(INDEX.len(), 336);
        assert!(INDEX.ends_with("-\n"));
    }

    #[test]
    fn the_start_up_text_tells_of_the_fast_start_first() {
        let text = startup_text(true);
        assert!(text.starts_with("Congratulations.\nYou were able to figure out why\n"));
        assert!(text.find("google_dns_is_not_http") < text.find("yoohoo_server_launched"));
        assert_eq!(text.matches(&"-".repeat(50)).count(), 4);
        assert_eq!(text.matches("code:         ").count(), 2);
        assert!(text.ends_with("-\n"));
        assert_eq!(startup_text(false), STARTED);
    }
}
