//! The machine that a bench ran on, without which its figures mean nothing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Error, Result};
use super::latency::millis;
use crate::clock::Clock;

/// How many syncs are timed.
const SYNCS: usize = 200;
/// For how long at most; at least three are timed.
const SYNCS_TIME: Duration = Duration::from_secs(3);

/// The machine, its disk, and this program.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    kernel: String,
    /// Whether the folder lies in memory, where a sync does nothing.
    in_memory: bool,
    fdatasync_p50: Duration,
    build: &'static str,
}

impl Machine {
    /// Looks at the machine, and measures the disk that `folder` is on.
    pub(super) fn look(folder: &Path, clock: &Clock) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let fdatasync_p50 = fdatasync_p50(folder, clock)
            .map_err(|error| Error::failed(format!("cannot write to {}: {error}", folder.display())))?;
        let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Ok(Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.unwrap_or_default() << 10,
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()).trim().to_owned(),
            in_memory: in_memory(folder),
            fdatasync_p50,
            build: build(),
        })
    }

    /// What makes its figures worthless.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let debug =
            cfg!(debug_assertions).then_some("this is a debug build, several times slower: take one built with `--profile dist`");
        let memory =
            self.in_memory.then_some("the folder is in memory, where nothing is durable: choose another with `--folder`");
        debug.into_iter().chain(memory).collect()
    }

    /// What one sync of the disk takes.
    pub(super) fn fdatasync_p50(&self) -> Duration {
        self.fdatasync_p50
    }

    /// Lines for people.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let cores = if self.cores == 1 { "core" } else { "cores" };
        let memory = match self.memory_bytes {
            0 => String::new(),
            bytes => format!(", {:.1} GiB of memory", bytes as f64 / f64::from(1 << 30)),
        };
        vec![
            ("machine", format!("{} {cores} ({}){memory}, {}", self.cores, self.cpu, self.kernel)),
            ("disk", format!("fdatasync of 4 KiB appended: p50 {:.3} ms", millis(self.fdatasync_p50))),
            ("build", format!("taskhook {}, {}", env!("CARGO_PKG_VERSION"), self.build)),
        ]
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
            "fdatasync_p50_ms": millis(self.fdatasync_p50),
            "folder_in_memory": self.in_memory,
            "version": env!("CARGO_PKG_VERSION"),
            "build": self.build,
        })
    }
}

/// The value of the first line `name: value`, as in the files under `/proc`.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| Some(line.split_once(':').filter(|(key, _)| key.trim() == name)?.1.trim().to_owned());
    text.lines().find_map(value)
}

/// The profile of the build. Only the folder that cargo builds in tells one optimised build from another.
fn build() -> &'static str {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
    match cfg!(debug_assertions) {
        true => "debug",
        false if folder == "dist" => "dist",
        false if folder == "release" => "release",
        false => "optimised",
    }
}

/// The middle one of many syncs, each after 4 KiB were appended.
fn fdatasync_p50(folder: &Path, clock: &Clock) -> io::Result<Duration> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    let (begun, mut times) = (clock.elapsed(), Vec::new());
    while times.len() < SYNCS && (times.len() < 3 || clock.elapsed().saturating_sub(begun) < SYNCS_TIME) {
        let before = clock.elapsed();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(clock.elapsed().saturating_sub(before));
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[times.len() / 2])
}

#[cfg(target_os = "linux")]
fn in_memory(folder: &Path) -> bool {
    // The magic numbers of tmpfs and ramfs in statfs(2).
    rustix::fs::statfs(folder).is_ok_and(|stat| matches!(stat.f_type & 0xffff_ffff, 0x0102_1994 | 0x8584_58f6))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_folder: &Path) -> bool {
    false
}

/// A machine for tests of what is told of it.
#[cfg(test)]
pub(super) fn example() -> Machine {
    Machine {
        cpu: "Example CPU".to_owned(),
        cores: 2,
        memory_bytes: 8 << 30,
        kernel: "linux 6.1".to_owned(),
        in_memory: false,
        fdatasync_p50: Duration::from_micros(185),
        build: "dist",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::look(folder.path(), &Clock::system()).unwrap();
        assert!(machine.cores > 0 && !machine.cpu.is_empty() && machine.build == "debug", "{machine:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing");
        assert_eq!(machine.warnings().len(), 1 + usize::from(machine.in_memory), "of a debug build is warned");
    }

    #[test]
    fn machines_are_told_in_three_lines() {
        let facts = example().facts().into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(facts.replace(env!("CARGO_PKG_VERSION"), "VERSION"), @"
        machine: 2 cores (Example CPU), 8.0 GiB of memory, linux 6.1
        disk: fdatasync of 4 KiB appended: p50 0.185 ms
        build: taskhook VERSION, dist
        ");
    }

    #[test]
    fn fields_of_proc_are_read() {
        let status = "Name:\ttaskhook\nVmHWM:\t   71000 kB\nRssAnon:\t   12000 kB\n";
        assert_eq!(field(status, "RssAnon").as_deref(), Some("12000 kB"));
        assert_eq!(field(status, "Anon"), None);
    }
}
