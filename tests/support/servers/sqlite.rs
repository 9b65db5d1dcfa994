//! The sqlite3 shell as an application: another process, of another user, with another version of the library.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use super::{Running, as_user};

/// Who owns the databases of tests.
pub const USER: &str = "daemon";

pub struct Shell {
    pub process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    #[track_caller]
    pub fn open(database: &Path) -> Shell {
        let mut child = as_user(USER, "sh")
            .args(["-c", "exec sqlite3 -batch \"$0\" 2>&1"])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Shell {
            process: Running(child),
            input,
            output: BufReader::new(output),
        };
        shell.ask(".timeout 20000");
        shell
    }

    /// Ends as an application does that closes its database.
    pub fn quit(mut self) {
        self.input.write_all(b".quit\n").unwrap();
        assert!(self.process.0.wait().unwrap().success());
    }

    /// Says the statements and does not wait.
    pub fn say(&mut self, statements: &str) {
        writeln!(self.input, "{statements}\nSELECT '--done';").unwrap();
    }

    /// The lines that came of the last `say`.
    pub fn hear(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{lines:?}");
            match line.trim_end() {
                "--done" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    pub fn ask(&mut self, statements: &str) -> Vec<String> {
        self.say(statements);
        self.hear()
    }

    /// As `ask`; panics where anything is an error.
    #[track_caller]
    pub fn does(&mut self, statements: &str) -> Vec<String> {
        let lines = self.ask(statements);
        let refused = lines.iter().find(|line| line.contains("rror"));
        assert!(refused.is_none(), "{statements}: {lines:?}");
        lines
    }
}
