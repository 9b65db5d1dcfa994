//! The process that follows a jinja template: without rights, with bounded memory and time.
//!
//! Promise: before it sees the template it has given up files, sockets and processes, and has bounds on memory and on
//! processor time, so that no template, however it is meant, harms more than its own file. The answer is one text or one
//! sentence; it is not trusted: its length is bounded, and it goes where the text of any template goes.
//!
//! It deliberately does not know where the text goes.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::host::user;
use crate::logic::seed::{Fault, TEXT_BYTES_MAX, Values, jinja};
use crate::sandbox;

/// The hidden verb that makes the program this worker.
pub const VERB: &str = "seed-worker";

/// Memory it may write to, in bytes: a template and its text take a fraction.
const DATA_BYTES: u64 = 128 << 20;

/// Seconds of processor time; a template of configuration takes milliseconds.
const CPU_S: u64 = 5;

/// Longest wait for its answer; more than its processor time, for a machine that is busy.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Longest answer, in bytes of JSON: each byte of a text may take six.
const ANSWER_BYTES_MAX: u64 = 6 * TEXT_BYTES_MAX as u64 + 4096;

/// What following a template takes.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // A debug build looks whether what it closes is open.
    libc::SYS_fcntl,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    name: String,
    template: String,
    values: Values,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Text(String),
    Fault(String),
}

/// Follows one template, read from standard input; the answer goes to standard output.
pub fn work() -> Result<()> {
    sandbox::belong_to_parent()?;
    sandbox::limit(Resource::Core, 0)?;
    sandbox::limit(Resource::Cpu, CPU_S)?;
    sandbox::limit(Resource::Data, DATA_BYTES)?;
    sandbox::limit(Resource::Fsize, 0)?;
    sandbox::limit(Resource::Nproc, 0)?;
    sandbox::allow_only(CALLS)?;
    let mut order = Vec::new();
    let mut input = std::io::stdin().lock();
    input.read_to_end(&mut order).context("read the order")?;
    let order: Order = serde_json::from_slice(&order).context("understand the order")?;
    let answer = match jinja(&order.name, &order.template, &order.values) {
        Ok(text) => Answer::Text(text),
        Err(fault) => Answer::Fault(match fault {
            Fault::Wrong(why) => why,
            fault => fault.to_string(),
        }),
    };
    let answer = serde_json::to_vec(&answer).context("write the answer")?;
    let mut output = std::io::stdout().lock();
    output
        .write_all(&answer)
        .and_then(|()| output.flush())
        .context("answer")
}

/// The text of a template, by a worker. `name` is for its errors.
pub async fn follow(name: &str, template: &str, values: &Values) -> Result<String> {
    let order = Order {
        name: name.to_owned(),
        template: template.to_owned(),
        values: values.clone(),
    };
    let order = serde_json::to_vec(&order).context("write an order for the worker")?;
    let answer = tokio::time::timeout(ANSWER_MAX, answer(&order)).await;
    let answer = answer.context("follow the template: its worker gave no answer in time")??;
    match answer {
        Answer::Text(text) if text.len() <= TEXT_BYTES_MAX => Ok(text),
        Answer::Text(_) => bail!("{}", Fault::TooLong),
        Answer::Fault(why) => bail!("{}", Fault::Wrong(why.chars().take(1000).collect())),
    }
}

async fn answer(order: &[u8]) -> Result<Answer> {
    // This very program, even when its file has been replaced since.
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg(VERB)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = user::unprivileged() {
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = command.spawn().context("start the worker of a template")?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (mut input, output) = input
        .zip(output)
        .context("reach the worker of a template")?;
    let mut said = Vec::new();
    let mut output = output.take(ANSWER_BYTES_MAX);
    // Both at once: it may stop reading before it has heard all.
    let (told, read) = tokio::join!(
        async {
            let told = input.write_all(order).await;
            drop(input);
            told
        },
        output.read_to_end(&mut said)
    );
    drop(output);
    let status = child
        .wait()
        .await
        .context("wait for the worker of a template")?;
    if !status.success() {
        bail!(
            "follow the template: it takes more than {} MiB of memory or {CPU_S} s (its worker ended: {status})",
            DATA_BYTES >> 20
        );
    }
    told.and(read.map(drop))
        .context("hear from the worker of a template")?;
    serde_json::from_slice(&said).context("understand the worker of a template")
}
