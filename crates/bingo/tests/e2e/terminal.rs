//! A terminal of a test (pty(7)): what a program draws on it, keys that are typed on it, and whether it
//! is left as it was found. It controls no session: signals are sent by their names.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acceptance::signals::wait_until;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Terminal {
    keyboard: File,
    /// Its program's side; held open, so that what was drawn is not lost with the program.
    program: OwnedFd,
    drawn: Arc<Mutex<Vec<u8>>>,
    modes: LocalModes,
}

impl Terminal {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&program, size).unwrap();
        let keyboard = File::from(keyboard);
        let mut screen = keyboard.try_clone().unwrap();
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&drawn);
        // It ends with the last descriptor of the program's side.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = screen.read(&mut bytes) {
                shared.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let modes = tcgetattr(&program).unwrap().local_modes;
        Self {
            keyboard,
            program,
            drawn,
            modes,
        }
    }

    /// Starts a program on it.
    pub(crate) fn start(&self, command: &mut Command) -> Child {
        let side = || self.program.try_clone().unwrap();
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        command.stdin(side()).stdout(side()).stderr(side());
        command.spawn().unwrap()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// All that was drawn so far, with its codes.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }

    /// Waits until words were drawn that often.
    pub(crate) async fn shows(&self, words: &str, times: usize) {
        let shown = wait_until(words, SOON, async || {
            self.text().matches(words).count() >= times
        });
        if shown.await.is_err() {
            panic!("{words:?} was not shown {times} times: {}", self.text());
        }
    }

    /// Lines are edited and keys such as Ctrl-C are signals, as when it was opened.
    pub(crate) fn is_as_found(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes == self.modes
    }
}
