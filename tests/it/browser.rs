//! The dashboard in a real browser: Chromium, driven by chromedriver, with nobody at the keyboard. `tests/run` brings both.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::SignedDuration;
use serde_json::{Value, json};
use taskhook::simulator::manus::{End, Plan, Turn};

use crate::harness::{Harness, KEY, PATIENCE, Recorder, Reply, within};
use crate::work::{run, setup, start};

/// A browser of its own, which ends with the value.
struct Browser {
    client: Client,
    driver: Child,
    /// Where the driver is, and the path of our session there.
    session: (u16, String),
    base: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A browser outlives its driver that is killed, and would ask for news of a port that is somebody else's by then.
        let (port, path) = &self.session;
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", *port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(stream, "DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
            let _ = stream.read(&mut [0; 512]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// How wide and high it is, and whether it is dark around it.
#[derive(Clone, Copy, Debug)]
struct Window(u32, u32, bool);

const WIDE: Window = Window(1280, 900, false);
const PHONE: Window = Window(360, 740, true);

impl Browser {
    async fn open(harness: &Harness, window: Window) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver, which `tests/run` installs");
        let Window(width, height, dark) = window;
        let mut arguments = vec!["--headless=new".to_owned(), "--no-sandbox".to_owned(), "--disable-gpu".to_owned()];
        arguments.extend(["--disable-dev-shm-usage".to_owned(), "--no-proxy-server".to_owned(), "--lang=en".to_owned()]);
        arguments.push(format!("--window-size={width},{height}"));
        let mut options = json!({"args": arguments});
        if width < 500 {
            // A window is never that narrow; a telephone is.
            options["mobileEmulation"] =
                json!({"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2, "touch": true}});
        }
        let mut wanted = Capabilities::new();
        wanted.insert("goog:chromeOptions".to_owned(), options);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted);
        let url = format!("http://127.0.0.1:{port}");
        let connecting = async {
            loop {
                if let Ok(client) = builder.connect(&url).await {
                    return client;
                }
                tokio::task::yield_now().await;
            }
        };
        let client = within("a browser", connecting).await;
        let id = client.session_id().await.expect("a session").expect("a session");
        let browser =
            Self { client, driver, session: (port, format!("/session/{id}")), base: format!("http://{}", harness.app().admin) };
        if dark {
            let scheme = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}});
            browser.chrome(scheme).await;
        }
        browser
    }

    /// A command of Chromium's own.
    async fn chrome(&self, command: Value) {
        #[derive(Debug)]
        struct Cdp(Value);
        impl fantoccini::wd::WebDriverCompatibleCommand for Cdp {
            fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
                base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
            }

            fn method_and_body(&self, _: &url::Url) -> (axum::http::Method, Option<String>) {
                (axum::http::Method::POST, Some(self.0.to_string()))
            }
        }
        self.client.issue_cmd(Cdp(command)).await.expect("a command of Chromium");
    }

    async fn go(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.expect("a page");
    }

    async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.expect("a script that runs")
    }

    async fn text(&self) -> String {
        self.script("return document.body.innerText").await.as_str().expect("a text").to_owned()
    }

    /// Waits until the page shows `text`, while the program's time goes on.
    async fn shows(&self, harness: &Harness, text: &str) {
        let mut last = String::new();
        let shown = async {
            loop {
                last = self.text().await;
                if last.contains(text) {
                    return;
                }
                harness.clock.advance(SignedDuration::from_millis(100));
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, shown).await.is_ok();
        assert!(in_time, "`{text}` does not come: {last}");
    }

    async fn click(&self, css: &str) {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap_or_else(|error| panic!("{css}: {error}"))
            .click()
            .await
            .expect("a click");
    }

    async fn click_text(&self, text: &str) {
        let path = format!("//main//*[self::a or self::button or self::summary][normalize-space()={text:?}]");
        self.client
            .find(Locator::XPath(&path))
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .click()
            .await
            .expect("a click");
    }

    async fn fill(&self, css: &str, text: &str) {
        self.client.find(Locator::Css(css)).await.expect(css).send_keys(text).await.expect("keys");
    }

    /// What axe finds wrong with the page: its rules for WCAG 2.2 AA, and those that are good to keep.
    async fn is_accessible(&self, page: &str) {
        let script = fs::read_to_string(axe()).expect("axe, which `tests/run` brings");
        self.client.execute(&script, Vec::new()).await.expect("axe is there");
        let run = "const done = arguments[arguments.length - 1];
            const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
            axe.run(document, {runOnly: tags}).then((found) => done(found.violations.map((rule) =>
                [rule.id, rule.help, rule.nodes.map((node) => node.html + ' ' + node.failureSummary)])), (error) => done(String(error)));";
        let found = self.client.execute_async(run, Vec::new()).await.expect("axe runs");
        assert_eq!(found, json!([]), "{page}: {found:#}");
        let overflow = self.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
        assert_eq!(overflow, 0, "{page} is wider than the window");
    }
}

/// Where `tests/run` puts axe.
fn axe() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/axe/axe_playwright_python/axe.min.js")
}

async fn a_day_at_the_dashboard(window: Window) {
    let crm = Recorder::start().await;
    let tokens = "[admin]\ntoken = \"t0k3n\"\n";
    let folder = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";
    let mut harness = start(setup(&crm, "").config(tokens).config(folder)).await;
    let browser = Browser::open(&harness, window).await;
    browser.go("/").await;
    browser.is_accessible("the page to sign in at").await;
    browser.fill("[name=token]", "wrong").await;
    browser.click("main button").await;
    browser.shows(&harness, "this is not the token").await;
    browser.fill("[name=token]", "t0k3n").await;
    browser.click("main button").await;
    browser.shows(&harness, "Nothing has come yet").await;
    browser.is_accessible("an empty overview").await;

    // An event comes, and nobody loads the page again.
    browser.go("/events").await;
    let live = "return document.querySelector('#live.on') !== null";
    within("news", async {
        while browser.script(live).await != true {
            harness.clock.advance(SignedDuration::from_millis(100));
        }
    })
    .await;
    browser.script("window.here = true").await;
    let ask = End::Ask { question: "Inside or outside?".to_owned(), options: vec!["Inside".to_owned(), "Outside".to_owned()] };
    let plan = Plan::new([Turn::new(ask), Turn::finish("**Outside** it is.\n\n| a | b |\n|---|---|\n| 1 | 2 |")]);
    let plan = plan.titled("A table for two").with_file("plan.md", "text/markdown", "# Plan");
    let task = harness.manus.create_task(KEY, plan);
    run(&harness, &task).await;
    harness.drain().await;
    browser.shows(&harness, "task_stopped").await;
    assert_eq!(browser.script("return window.here").await, true, "it was not loaded again");
    browser.is_accessible("events").await;

    // A task asks, and goes on with the answer.
    browser.go("/").await;
    browser.shows(&harness, "Tasks that wait for your answer").await;
    browser.is_accessible("an overview").await;
    browser.click_text("A table for two").await;
    browser.shows(&harness, "It waits for your answer").await;
    browser.is_accessible("a task that asks").await;
    browser.click("input[value=Outside]").await;
    browser.fill("[name=by]", "kim").await;
    browser.click_text("Send the answer").await;
    browser.shows(&harness, "Your answer was sent").await;
    harness.manus.finish_all().await;
    harness.drain().await;
    browser.shows(&harness, "Outside it is.").await;
    browser.is_accessible("a task that finished").await;

    // What did not arrive is found, and sent again.
    crm.answer_next([Reply::Status(422)]);
    let lost = harness.manus.create_task(KEY, Plan::finish("Lost and found.").titled("A lost result"));
    run(&harness, &lost).await;
    harness.drain().await;
    browser.go("/").await;
    browser.shows(&harness, "Results that did not arrive").await;
    browser.click_text("to crm").await;
    browser.shows(&harness, "Try it again now").await;
    browser.is_accessible("a dead letter").await;
    browser.click_text("Try it again now").await;
    browser.shows(&harness, "It is tried again.").await;
    harness.drain().await;
    browser.shows(&harness, "delivered").await;
    assert_eq!(crm.bodies().last().expect("it arrived")["event"]["task_id"], lost);
    let event = crm.bodies().last().expect("it arrived")["id"].as_str().expect("an id").to_owned();
    for page in ["/tasks", "/deliveries", "/rejections", "/sources", "/deliveries/all/retry?state=dead"] {
        browser.go(page).await;
        browser.is_accessible(page).await;
    }
    browser.go(&format!("/events/{event}")).await;
    browser.is_accessible("an event").await;
    browser.click_text("Replay …").await;
    browser.shows(&harness, "By the routes of now it goes to").await;
    browser.is_accessible("the preview of a replay").await;
    browser.click_text("Replay it").await;
    browser.shows(&harness, "handed on again").await;
    harness.drain().await;
    let errors = browser.script("return performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).map((one) => one.name)").await;
    assert_eq!(errors, json!([]), "it asks nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_works_on_a_wide_window() {
    Box::pin(a_day_at_the_dashboard(WIDE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_works_on_a_telephone_in_the_dark() {
    Box::pin(a_day_at_the_dashboard(PHONE)).await;
}
