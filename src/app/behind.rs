//! Running a part behind the others: on threads of its own, which the system runs when the rest leaves it time.
//!
//! Senders wait for us, and may never come again; results only come later. So when there is more to do than the machine can, what
//! receives goes first and what works gets the rest, which is never nothing. Where there is time for both, neither is slower.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// By how much the threads are nicer than the rest of the process: when both want the processor, about a tenth of it is theirs.
const NICER: i32 = 10;
/// How long what blocks may take when the part has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Runs `part` behind the others, on so many `threads`, or on one for each processor. The future ends with it, and ends it when it is dropped.
///
/// # Errors
/// When the system gives no threads.
pub(super) fn run<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    threads: Option<usize>,
    part: F,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let runtime = runtime(name, threads)?;
    let dropped = CancellationToken::new();
    let (guard, (tell, ended)) = (dropped.clone().drop_guard(), oneshot::channel());
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        be_nicer();
        runtime.block_on(dropped.run_until_cancelled(part));
        runtime.shutdown_timeout(LINGER);
        // Whoever waited may have gone.
        let _ = tell.send(());
    })?;
    Ok(async move {
        let _guard = guard;
        // A panic ends the part as well; its message has been told.
        let _ = ended.await;
    })
}

fn runtime(name: &'static str, threads: Option<usize>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.thread_name(name).on_thread_start(be_nicer).enable_all().build()
}

/// On Linux a priority is a thread's, elsewhere the whole process's: there nothing is changed.
fn be_nicer() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(error = %error, "a thread keeps its priority: {error}");
    }
}
