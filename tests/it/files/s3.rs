//! An archive in S3: against a server that speaks like it. `tests/run` installs one.

use super::*;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use taskhook::http;

use crate::harness::{send, status, within};

/// Moto's server, as `tests/run` installs it; else one that is in the path.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/s3/bin/moto_server");

/// A server with one bucket, `results`. It ends with the test.
struct S3 {
    server: Child,
    address: String,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl S3 {
    /// One that lets everybody do so many things, and from then on only who has a key that it knows.
    async fn start(free: u64) -> Self {
        let program = if PathBuf::from(INSTALLED).exists() { INSTALLED } else { "moto_server" };
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", free.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut server =
            server.unwrap_or_else(|error| panic!("`{program}` cannot be started ({error}): `tests/run` installs it"));
        let talk = BufReader::new(server.stderr.take().expect("it is piped"));
        let begun = tokio::task::spawn_blocking(move || {
            let mut lines = talk.lines().map_while(Result::ok);
            let address = lines.find_map(|line| line.split_once("Running on ").map(|(_, address)| address.trim().to_owned()));
            // The rest is read, so that the server can go on talking.
            std::thread::spawn(move || lines.for_each(drop));
            address
        });
        let address = within("an S3 server", begun).await.expect("it is read").expect("it says where it listens");
        let s3 = Self { server, address };
        assert_eq!(s3.ask(Method::PUT, "results").await, 200);
        s3
    }

    async fn ask(&self, method: Method, path: &str) -> u16 {
        let request = http::client(Duration::from_secs(10)).request(method, format!("{}/{path}", self.address));
        status(&send(request).await)
    }

    /// The keys of all objects.
    async fn objects(&self) -> Vec<String> {
        let request = http::client(Duration::from_secs(10)).get(format!("{}/results", self.address));
        let text = String::from_utf8(send(request).await.body.to_vec()).expect("text");
        text.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    fn config(&self) -> String {
        format!(
            "[archive]\nurl = \"s3://results/some/prefix\"\nendpoint = \"{}\"\nregion = \"eu-central-1\"\n\
             access_key_id = \"AKIAEXAMPLE\"\nsecret_access_key = \"a-secret-of-s3\"\n",
            self.address
        )
    }
}

#[tokio::test]
async fn files_of_any_size_are_kept_in_s3_and_served_from_there() {
    let (crm, s3) = (Recorder::start().await, S3::start(1_000_000).await);
    let files = "[files]\nlisten = \"127.0.0.1:0\"\npublic_url = \"http://localhost\"\n";
    let mut harness = start(setup(&crm).config(&s3.config()).config(files)).await;
    let large: Vec<u8> = (0..11_000_000_u32).map(|n| u8::try_from(n % 251).expect("small")).collect();
    // It breaks on its way, too.
    harness.manus.set_faults(Faults { api: vec![ApiFault::on("large", Times::Next(1), WrongAnswer::Half)], ..Faults::default() });
    let plan = Plan::finish("Done.")
        .with_file("empty.txt", "text/plain", "")
        .with_file("small.txt", "text/plain", "small")
        .with_file("large.bin", "application/octet-stream", large.clone())
        .with_file("again.bin", "application/octet-stream", large.clone());
    done(&harness, plan).await;
    harness.drain().await;
    assert_eq!(statuses(&crm), vec!["archived"; 4]);
    let mut expected: Vec<String> =
        [&b""[..], b"small", &large].iter().map(|content| format!("some/prefix/{}", place_of(&sha256(content)))).collect();
    expected.sort_unstable();
    assert_eq!(s3.objects().await, expected, "nothing is left on its way");
    let body = result(&crm);
    let link = body["files"][2]["link"].as_str().expect("a link");
    let path = link.strip_prefix("http://localhost").expect("its own base");
    let url = format!("http://{}{path}", harness.app().files.expect("it listens"));
    let client = http::client(Duration::from_secs(10));
    assert_eq!(sha256(&send(client.get(&url)).await.body), sha256(&large));
    let part = send(client.get(&url).header("range", "bytes=10999990-")).await;
    assert_eq!((status(&part), &part.body[..]), (206, &large[10_999_990..]));
    assert_eq!(harness.admin("/readyz").await["status"], "ready");
}

#[tokio::test]
async fn a_bucket_that_refuses_us_is_told_and_holds_nothing_back_for_ever() {
    let (crm, s3) = (Recorder::start().await, S3::start(1).await);
    let mut harness = start(setup(&crm).config(&s3.config()).config("[archive]\nwait = \"0s\"\n")).await;
    done(&harness, Plan::finish("Done.").with_file("a.txt", "text/plain", "4")).await;
    harness.drain().await;
    assert_eq!(statuses(&crm), ["pending"]);
    let ready = harness.admin("/readyz").await;
    let reason = ready["reasons"][0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the archive s3://results/some/prefix: ") && reason.contains("the access key"), "{reason}");
    assert!(reason.contains("access is denied (403)") && !reason.contains("a-secret-of-s3"), "{reason}");
    harness.expect_leftover();
}

#[tokio::test]
async fn the_usual_variables_say_where_s3_is_and_who_we_are() {
    let s3 = S3::start(1_000_000).await;
    let folder = tempfile::tempdir().unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .arg("check")
        .current_dir(folder.path())
        .env_clear()
        .env("MANUS_API_KEY", "sk-test")
        .env("TASKHOOK__SOURCES__MANUS__PROVIDER", "manus")
        .env("TASKHOOK__SOURCES__MANUS__BASE_URL", "http://127.0.0.1:1")
        .env("TASKHOOK__SERVER__PUBLIC_URL", "http://127.0.0.1:1")
        .env("TASKHOOK__ARCHIVE__URL", "s3://results")
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "a-secret-of-s3")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ENDPOINT_URL", &s3.address)
        .stdin(Stdio::null())
        .output();
    let said = String::from_utf8(check.unwrap().stdout).unwrap();
    assert!(said.contains("ok       archive: s3://results takes files and gives them back"), "{said}");
    assert_eq!(s3.objects().await, [""; 0], "nothing of the check is left");
}
