//! A disk that is full, and one that becomes read-only.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;

/// A disk of a few megabytes: a tmpfs in a mount namespace of its own, which lives as long as the process that made it. That ends with
/// its input, so with this value, or with the test.
pub(crate) struct Disk {
    holder: Child,
    folder: tempfile::TempDir,
    path: PathBuf,
    privileged: bool,
}

impl Disk {
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let privileged = rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount").args(if privileged { &[][..] } else { &["--user", "--map-root-user"] });
        unshare.args(["sh", "-c", "mount -t tmpfs -o \"size=$1\" tmpfs \"$0\" && echo ready && exec cat"]).arg(&path).arg(size);
        let spawned = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let needs = "this test mounts a tmpfs in a namespace of its own: it needs `unshare`, `nsenter` and `mount`, and to be root or \
                     to be let make user namespaces";
        let mut holder = spawned.unwrap_or_else(|error| panic!("{needs}: {error}"));
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let mut said = String::new();
            holder.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            let _ = holder.wait();
            panic!("{needs}: {said}");
        }
        Self { holder, folder, path, privileged }
    }

    /// A folder beside it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is mounted, for who is in its namespace.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where `name` on it is, for everybody else.
    fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.path.strip_prefix("/").unwrap()).join(name)
    }

    /// What goes before a command that is to run in its namespace.
    pub(crate) fn enter(&self) -> Vec<OsString> {
        let target = self.holder.id().to_string();
        let user: &[&str] = if self.privileged { &[] } else { &["--user", "--preserve-credentials"] };
        ["nsenter", "--target", &target, "--mount"].iter().chain(user).map(OsString::from).collect()
    }

    /// Fills it but for about `left` bytes.
    pub(crate) fn fill(&self, left: u64) {
        let name = self.outside("filler");
        let mut file = std::fs::File::create(&name).unwrap();
        while self.free() > left {
            if file.write_all(&[1; 4096]).is_err() {
                return;
            }
        }
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.outside("filler")).unwrap();
    }

    fn free(&self) -> u64 {
        let about = rustix::fs::statvfs(self.outside("")).unwrap();
        about.f_bavail * about.f_frsize
    }

    fn remount(&self, how: &str) {
        let mut words = self.enter().into_iter();
        let mounted =
            Command::new(words.next().unwrap()).args(words).args(["mount", "-o", how]).arg(&self.path).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn routed(crm: &Recorder) -> String {
    format!("{}[[routes]]\nto = [\"crm\"]\n", crm.section("crm", ""))
}

#[tokio::test]
async fn a_full_disk_turns_senders_away_until_there_is_room_and_loses_nothing() {
    let (disk, crm) = (Disk::new("24m"), Recorder::start().await);
    let setting = Setting::on(&disk).config(&routed(&crm));
    let mut program = setting.start().await;
    let client = http::client(Duration::from_secs(20));
    let mut kept = vec![stopped("first", 100)];
    accepted(&client, &program, &kept[0]).await;
    disk.fill(0);
    // One by one until the first that has no room, then many at once.
    let mut turned_away = Vec::new();
    for number in 0..200 {
        let event = stopped(&format!("alone{number}"), 20_000);
        let answer = sent(&client, &program, &event).await.expect("it answers");
        if status(&answer) != 200 {
            come_again(&answer, "store_full");
            turned_away.push(event);
            break;
        }
        kept.push(event);
    }
    assert_eq!(turned_away.len(), 1, "the disk is full");
    let many: Vec<_> = (0..40).map(|number| stopped(&format!("many{number}"), 20_000)).collect();
    let answers = futures_util::future::join_all(many.iter().map(|event| sent(&client, &program, event))).await;
    for (event, answer) in many.into_iter().zip(answers) {
        let answer = answer.expect("it answers");
        if status(&answer) == 200 {
            kept.push(event);
        } else {
            come_again(&answer, "store_full");
            turned_away.push(event);
        }
    }
    assert!(program.runs(), "{}", program.said());
    disk.make_room();
    for event in &turned_away {
        accepted(&client, &program, event).await;
    }
    kept.extend(turned_away);
    all_arrive(&crm, &kept).await;
    assert!(program.runs(), "it healed without a restart");
    program.kill();
    let program = setting.start().await;
    for event in &kept {
        assert!(is_kept(&client, &program, event).await, "{}", event["event_id"]);
    }
}

#[tokio::test]
async fn work_goes_on_while_too_little_space_is_left_for_new_events() {
    let (disk, crm) = (Disk::new("16m"), Recorder::start().await);
    let setting = Setting::on(&disk).config(&routed(&crm)).config("[store]\nmin_free_bytes = \"4MiB\"\n");
    let program = setting.start().await;
    let client = http::client(Duration::from_secs(20));
    crm.answer(crate::harness::Reply::Status(503));
    let kept: Vec<_> = (0..3).map(|number| stopped(&format!("e{number}"), 100)).collect();
    for event in &kept {
        accepted(&client, &program, event).await;
    }
    crm.received(3).await;
    disk.fill(2 << 20);
    let late = stopped("late", 100);
    within("the disk is seen to be nearly full", async {
        loop {
            // What space is left is looked at once a second.
            let answer = sent(&client, &program, &stopped("probe", 100)).await.expect("it answers");
            if status(&answer) == 503 {
                return come_again(&answer, "store_full");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    crm.answer(crate::harness::Reply::Status(200));
    crm.take();
    all_arrive(&crm, &kept).await;
    come_again(&sent(&client, &program, &late).await.expect("it answers"), "store_full");
    disk.make_room();
    accepted(&client, &program, &late).await;
    all_arrive(&crm, &[late]).await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_ends_the_program_and_the_next_start_says_so() {
    let (disk, faults) = (Disk::new("16m"), Faults::new());
    // A file system that meets an error makes itself read-only, whoever has files open on it; to a mount by hand those are in the way.
    let setting = Setting::on(&disk);
    let mut program = Setting::on(&disk).faults(&faults).start().await;
    let client = http::client(Duration::from_secs(20));
    let kept: Vec<_> = (0..5).map(|number| stopped(&format!("e{number}"), 100)).collect();
    for event in &kept {
        accepted(&client, &program, event).await;
    }
    for call in ["write-wal", "write-db"] {
        faults.fail(call, "30 always");
    }
    let answer = sent(&client, &program, &stopped("late", 100)).await;
    assert!(answer.is_none_or(|answer| status(&answer) == 503));
    assert_eq!(program.ended().await.code(), Some(1));
    assert!(program.said().contains("the store's disk failed"), "{}", program.said());

    disk.remount("remount,ro");
    let (code, said) = setting.refused().await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains(&format!("mount {} for writing", disk.path().display())), "{said}");

    disk.remount("remount,rw");
    let program = setting.start().await;
    for event in &kept {
        assert!(is_kept(&client, &program, event).await, "{}", event["event_id"]);
    }
}

/// A program as somebody else than root: who is root already gives that up, to whoever owns nothing.
fn as_nobody(setting: Setting) -> (Setting, u32) {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        (setting.by(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]), 65534)
    } else {
        (setting, uid.as_raw())
    }
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_to_is_refused_with_the_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::create_dir(&path).unwrap();
    // No mode stops root, unless it gives that up.
    let powerless = |setting: Setting| {
        if rustix::process::geteuid().is_root() {
            setting.by(["setpriv", "--bounding-set=-dac_override,-dac_read_search"])
        } else {
            setting
        }
    };
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let uid = rustix::process::geteuid().as_raw();
    let setting = || powerless(Setting::new(&path).lying_in(folder.path()));
    let mut program = setting().start().await;
    let client = http::client(Duration::from_secs(20));
    let event = stopped("e1", 100);
    accepted(&client, &program, &event).await;
    program.stop().await;

    let database = path.join("taskhook.db");
    for (closed, what) in [(&path, 0o500), (&database, 0o400)] {
        let open = std::os::unix::fs::PermissionsExt::mode(&closed.metadata().unwrap().permissions());
        mode(closed, what);
        let (code, said) = setting().refused().await;
        mode(closed, open);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("cannot write to"), "{said}");
        let hint =
            format!("this process runs as uid {uid}, whose folder it is; let it write there: chmod -R u+rwX {}", path.display());
        assert!(said.contains(&hint), "{said}");
    }

    // Somebody else's folder.
    mode(folder.path(), 0o755);
    let setting = Setting::new(Path::new("/usr/taskhook")).lying_in(folder.path()).copied_to(folder.path());
    let (setting, uid) = as_nobody(setting);
    let (code, said) = setting.refused().await;
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains(&format!("this process runs as uid {uid}; give it the folder: mkdir -p /usr/taskhook && chown -R {uid}:")),
        "{said}"
    );

    let program = Setting::new(&path).start().await;
    assert!(is_kept(&client, &program, &event).await);
}
