//! The other end of the stage, inside of a machine: runs what it is told, and answers with output and exit code.
//!
//! Promise: each request has a thread of its own; a program that leaves children behind does not hold up its answer; a stage
//! that is not connected is waited for. It knows nothing of standin.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::words::{Answer, PORT, Request, TIME_IS_UP, pack, unpack};

/// Between two looks at whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn serve() -> ! {
    let mut port = None;
    while port.is_none() {
        port = File::options().read(true).write(true).open(PORT).ok();
        std::thread::sleep(LOOK_EVERY);
    }
    let port = port.expect("the loop ends with a port");
    let answers = Arc::new(Mutex::new(port.try_clone().unwrap()));
    let mut lines = BufReader::new(port);
    let mut line = Vec::new();
    loop {
        match lines.read_until(b'\n', &mut line) {
            // Nobody is connected at the moment.
            Ok(0) | Err(_) => std::thread::sleep(LOOK_EVERY),
            Ok(_) if !line.ends_with(b"\n") => {}
            Ok(_) => {
                if let Ok(request) = serde_json::from_slice::<Request>(&line) {
                    let answers = Arc::clone(&answers);
                    std::thread::spawn(move || {
                        let mut text = serde_json::to_vec(&carry_out(&request)).unwrap();
                        text.push(b'\n');
                        let _ = answers.lock().unwrap().write_all(&text);
                    });
                }
                line.clear();
            }
        }
    }
}

fn carry_out(request: &Request) -> Answer {
    let (code, out, err) = match run(request) {
        Ok(ran) => ran,
        Err(error) => (127, Vec::new(), format!("{error}\n").into_bytes()),
    };
    Answer {
        id: request.id,
        code,
        out: pack(&out),
        err: pack(&err),
    }
}

/// Output goes through files: children that live on may keep them open.
fn run(request: &Request) -> std::io::Result<(i32, Vec<u8>, Vec<u8>)> {
    let [mut stdin, mut out, mut err] = [unnamed()?, unnamed()?, unnamed()?];
    stdin.write_all(&unpack(&request.stdin))?;
    stdin.rewind()?;
    let mut child = Command::new(&request.argv[0])
        .args(&request.argv[1..])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .env("HOME", "/root")
        .process_group(0)
        .stdin(stdin)
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()?;
    let began = Instant::now();
    let limit = Duration::from_millis(request.limit);
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break code_of(status);
        }
        if began.elapsed() > limit {
            let group = Pid::from_child(&child);
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            break TIME_IS_UP;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    Ok((code, whole(&mut out)?, whole(&mut err)?))
}

fn unnamed() -> std::io::Result<File> {
    tempfile::tempfile_in("/run")
}

fn code_of(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(-1)
}

fn whole(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
