//! The dashboard over HTTP: who may see and do what, what is on its pages, and what hostile content does there: nothing.

use std::time::Duration;

use reqwest::{Method, StatusCode, header};
use serde_json::json;
use taskhook::http::Answer;
use taskhook::simulator::manus::{End, Plan, Turn};

use crate::harness::{Harness, KEY, Recorder, Reply, json as body_of, send};
use crate::work::{run, setup, start, stopped};

/// A page that was answered.
struct Page {
    status: u16,
    answer: Answer,
    body: String,
}

impl Page {
    fn header(&self, name: &str) -> &str {
        self.answer.header(name).unwrap_or_default()
    }

    fn shows(&self, text: &str) -> &Self {
        assert!(self.body.contains(text), "`{text}` is not in {}", self.body);
        self
    }
}

/// A browser: it follows nothing, so that what it is told is seen, and keeps one cookie.
struct Browser<'a> {
    harness: &'a Harness,
    client: reqwest::Client,
    cookie: Option<String>,
}

impl<'a> Browser<'a> {
    #[expect(clippy::disallowed_methods, reason = "a browser is no part of the program")]
    fn new(harness: &'a Harness) -> Self {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        Self { harness, client: builder.build().expect("a client"), cookie: None }
    }

    async fn ask(&self, method: Method, path: &str, extra: &[(&str, &str)], form: Option<&[(&str, &str)]>) -> Page {
        let mut request = self.client.request(method, format!("http://{}{path}", self.harness.app().admin));
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        if let Some(form) = form {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.extend_pairs(form);
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.finish());
        }
        let answer = send(request).await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Page { status: answer.status.as_u16(), answer, body }
    }

    async fn get(&self, path: &str) -> Page {
        self.ask(Method::GET, path, &[], None).await
    }

    /// Sends the form on `page` that goes to `action`, with these fields filled in.
    async fn send(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> Page {
        let shown = self.get(page).await;
        assert!(shown.body.contains(&format!("action=\"{action}\"")), "no form to {action} on {page}: {}", shown.body);
        let token = form_token(&shown);
        let fields: Vec<_> = fields.iter().copied().chain([("form_token", token.as_str())]).collect();
        self.ask(Method::POST, action, &[], Some(&fields)).await
    }

    async fn sign_in(&mut self, token: &str) -> Page {
        let page = self.ask(Method::POST, "/sign-in", &[], Some(&[("token", token), ("next", "/tasks")])).await;
        self.cookie = page.header("set-cookie").split(';').next().filter(|cookie| !cookie.is_empty()).map(ToOwned::to_owned);
        page
    }
}

fn form_token(page: &Page) -> String {
    let (_, rest) = page.body.split_once("name=\"form_token\" value=\"").expect("a form of ours");
    rest.split_once('"').expect("its end").0.to_owned()
}

const TOKENS: &str = "[admin]\ntoken = \"t0k3n-act\"\nread_token = \"t0k3n-read\"\n";
const PAGES: [&str; 6] = ["/", "/tasks", "/events", "/deliveries", "/rejections", "/sources"];

#[tokio::test]
async fn nothing_is_seen_without_a_token_and_nobody_is_led_astray() {
    let harness = Harness::with(TOKENS).await;
    let mut browser = Browser::new(&harness);
    for path in PAGES.into_iter().chain(["/tasks/manus/x", "/events/x", "/files/manus/x/y", "/nowhere"]) {
        let page = browser.get(path).await;
        assert_eq!((page.status, page.body.as_str()), (303, ""), "{path}");
        assert_eq!(page.header("location"), format!("/sign-in?next={}", path.replace('/', "%2F")));
    }
    for path in ["/api/v1/events", "/api/v1/nowhere", "/metrics"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    let page = browser.get("/sign-in?next=//evil.example").await;
    assert_eq!(page.status, 200);
    page.shows("name=\"next\" value=\"/\"");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    // Nothing of it but our own files, which need no token.
    let style = page.body.split_once("/assets/").expect("a style sheet").1.split_once('"').expect("its end").0.to_owned();
    let asset = browser.get(&format!("/assets/{style}")).await;
    assert_eq!(asset.status, 200);
    assert!(asset.header("cache-control").contains("immutable"));
    // The token is taken from the form, and never from the address.
    assert_eq!(browser.get("/?token=t0k3n-act").await.status, 303);
    assert_eq!(browser.sign_in("wrong").await.status, 401);
    assert_eq!(browser.cookie, None);
    let entered = browser.sign_in(" t0k3n-act ").await;
    assert_eq!((entered.status, entered.header("location")), (303, "/sign-in?entered=1&next=%2Ftasks"));
    let cookie = entered.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("t0k3n"), "over plain HTTP on this machine: {cookie}");
    assert_eq!(browser.get("/sign-in?entered=1&next=%2Ftasks").await.header("location"), "/tasks");
    for path in PAGES {
        assert_eq!(browser.get(path).await.status, 200, "{path}");
    }
    assert_eq!(browser.get("/api/v1/events").await.status, 200, "what pages load is there for them");
    // It ends with its time, and at once when somebody signs out.
    let left = browser.send("/", "/sign-out", &[]).await;
    assert_eq!((left.status, left.header("location")), (303, "/sign-in"));
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    harness.clock.advance(jiff::SignedDuration::from_hours(12));
    assert_eq!(browser.get("/tasks").await.status, 303);
    // Off this machine the cookie goes over HTTPS only; a browser that did not keep it is told why.
    let away = browser.ask(Method::POST, "/sign-in", &[("host", "hooks.example.com")], Some(&[("token", "t0k3n-act")])).await;
    assert!(away.header("set-cookie").contains("; Secure"), "{}", away.header("set-cookie"));
    browser.cookie = None;
    browser.get("/sign-in?entered=1").await.shows("must come over HTTPS");
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let harness = Harness::with(TOKENS).await;
    let mut browser = Browser::new(&harness);
    browser.sign_in("t0k3n-read").await;
    let page = browser.get("/sources").await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("/sources/manus/check"), "no button that does nothing");
    let token = form_token(&page);
    let refused = browser.ask(Method::POST, "/sources/manus/check", &[], Some(&[("form_token", &token)])).await;
    assert_eq!(refused.status, 403);
    let bearer = [("authorization", "Bearer t0k3n-read"), ("content-type", "application/json")];
    assert_eq!(browser.ask(Method::GET, "/api/v1/events", &bearer, None).await.status, 200);
    for (method, path) in [
        (Method::POST, "/api/v1/destinations/log/pause"),
        (Method::POST, "/api/v1/events/replay"),
        (Method::PUT, "/api/v1/public_urls/00000000-0000-7000-8000-000000000000"),
    ] {
        let refused = browser.ask(method, path, &bearer, None).await;
        assert_eq!(refused.status, 403, "{path}");
        refused.shows("scope_missing");
    }
    // Signing out is not acting.
    assert_eq!(browser.send("/", "/sign-out", &[]).await.status, 303);
}

#[tokio::test]
async fn sign_in_cannot_be_tried_all_day() {
    let harness = Harness::with(TOKENS).await;
    let mut browser = Browser::new(&harness);
    let mut refused = 0;
    for _ in 0..30 {
        refused += usize::from(browser.sign_in("guess").await.status == 429);
    }
    assert!(refused >= 15, "{refused}");
    let page = browser.sign_in("t0k3n-act").await;
    assert_eq!(page.status, 429, "nor by who has guessed it by now");
    assert!(!page.header("retry-after").is_empty());
    harness.clock.advance(jiff::SignedDuration::from_mins(1));
    assert_eq!(browser.sign_in("t0k3n-act").await.status, 303);
}

#[tokio::test]
async fn no_page_of_another_site_makes_a_browser_do_something() {
    for (config, token) in [(TOKENS, Some("t0k3n-act")), ("", None)] {
        let harness = Harness::with(config).await;
        let mut browser = Browser::new(&harness);
        if let Some(token) = token {
            browser.sign_in(token).await;
        }
        let page = browser.get("/deliveries").await;
        let ours = form_token(&page);
        let pause = "/destinations/log/pause";
        for foreign in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:1")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
        ] {
            // Even with the token of the form, and of the API as well.
            assert_eq!(
                browser.ask(Method::POST, pause, foreign, Some(&[("form_token", &ours)])).await.status,
                403,
                "{foreign:?}"
            );
            let api = browser.ask(Method::POST, "/api/v1/destinations/log/pause", foreign, None).await;
            assert_eq!(api.status, 403, "{foreign:?}");
        }
        for form in [&[][..], &[("form_token", "")], &[("form_token", "AAAA")]] {
            let page = browser.ask(Method::POST, pause, &[("sec-fetch-site", "same-origin")], Some(form)).await;
            assert_eq!(page.status, 403, "{form:?}");
            page.shows("another session");
        }
        assert_eq!(harness.admin_state("log").await, "ok");
        let done = browser.ask(Method::POST, pause, &[("sec-fetch-site", "same-origin")], Some(&[("form_token", &ours)])).await;
        assert_eq!((done.status, done.header("location")), (303, "/deliveries?notice=paused"));
        assert_eq!(harness.admin_state("log").await, "paused");
        if token.is_none() {
            // A name of somebody else's that was made to lead here.
            let rebound = browser.ask(Method::GET, "/api/v1/events", &[("host", "evil.example:8081")], None).await;
            assert_eq!(rebound.status, 421);
        }
    }
}

impl Harness {
    /// Whether a destination is paused, asked with the token where there is one.
    async fn admin_state(&self, name: &str) -> String {
        let request = self.admin_request(Method::GET, "/api/v1/destinations").header(header::AUTHORIZATION, "Bearer t0k3n-act");
        let answer = body_of(&send(request).await);
        let row = answer["data"].as_array().expect("rows").iter().find(|row| row["name"] == name).expect("it is configured");
        row["state"].as_str().expect("a state").to_owned()
    }
}

#[tokio::test]
async fn a_result_that_did_not_arrive_is_found_from_the_overview_and_sent_again() {
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    harness.drain().await;
    Browser::new(&harness).get("/").await.shows("Nothing has come yet").shows("taskhook webhooks register");
    crm.answer_next([Reply::Status(422)]);
    let task = harness.manus.create_task(KEY, Plan::finish("The answer is **4**.").with_file("a.md", "text/markdown", "4"));
    harness.manus.step(&task).await;
    harness.drain().await;
    let browser = Browser::new(&harness);
    let overview = browser.get("/").await;
    overview.shows("Results that did not arrive").shows("422");
    let delivery = overview.body.split_once("href=\"/deliveries/").expect("a link").1.split_once('"').expect("its end").0;
    let page = format!("/deliveries/{delivery}");
    browser.get(&page).await.shows("Try it again now").shows("422");
    let done = browser.send(&page, &format!("{page}/retry"), &[]).await;
    assert_eq!((done.status, done.header("location")), (303, format!("{page}?notice=retried").as_str()));
    harness.drain().await;
    let browser = Browser::new(&harness);
    browser.get(&format!("{page}?notice=retried")).await.shows("It is tried again.").shows("delivered");
    let before = crm.recorded().len();
    // An event is handed on again, once it was shown where it goes.
    let event = browser
        .get("/events")
        .await
        .body
        .split_once("href=\"/events/")
        .expect("a link")
        .1
        .split_once('"')
        .expect("its end")
        .0
        .to_owned();
    let preview = format!("/events/{event}/replay");
    browser.get(&preview).await.shows("<strong>crm</strong>");
    assert_eq!(browser.send(&preview, &preview, &[]).await.header("location"), format!("/events/{event}?notice=replayed"));
    harness.drain().await;
    assert_eq!(crm.recorded().len(), before + 1);
    let browser = Browser::new(&harness);
    browser.get(&format!("/events/{event}")).await.shows("1 time(s)").shows("curl -X POST");
    // Many at once, counted first.
    let many = "/deliveries/all/discard";
    assert_eq!(browser.get(&format!("{many}?destination=crm&state=delivered")).await.status, 400);
    crm.answer_next([Reply::Status(410), Reply::Status(410)]);
    for _ in 0..2 {
        let lost = harness.manus.create_task(KEY, Plan::finish("Lost."));
        harness.manus.step(&lost).await;
    }
    harness.drain().await;
    let browser = Browser::new(&harness);
    let dead = format!("{many}?destination=crm&state=dead");
    browser.get(&dead).await.shows("<strong>2</strong>");
    let done = browser.send(&dead, many, &[("destination", "crm"), ("state", "dead")]).await;
    assert_eq!(done.status, 200, "{}", done.body);
    done.shows("2 deliveries are discarded.");
    browser.get(&dead).await.shows("<strong>0</strong>");
}

#[tokio::test]
async fn a_question_is_answered_where_it_is_seen_and_the_task_goes_on() {
    let ask = End::Ask { question: "Inside or outside?".to_owned(), options: vec!["Inside".to_owned(), "Outside".to_owned()] };
    let crm = Recorder::start().await;
    let mut harness = start(setup(&crm, "")).await;
    let task = harness.manus.create_task(KEY, Plan::new([Turn::new(ask), Turn::finish("Outside it is.")]));
    harness.manus.finish_all().await;
    harness.drain().await;
    let page = format!("/tasks/manus/{task}");
    let browser = Browser::new(&harness);
    browser.get("/").await.shows("Tasks that wait for your answer").shows("Inside or outside?");
    browser.get(&page).await.shows("value=\"Outside\"").shows("It waits for your answer");
    let nothing = browser.send(&page, &format!("{page}/answer"), &[("say", "reply")]).await;
    assert_eq!(nothing.status, 400);
    nothing.shows("choose an answer, or write one");
    let answer = [("say", "reply"), ("option", "Outside"), ("by", "kim")];
    let done = browser.send(&page, &format!("{page}/answer"), &answer).await;
    assert_eq!((done.status, done.header("location")), (303, format!("{page}?notice=answered").as_str()));
    // A form that was open all the while answers nothing twice.
    let token = form_token(&browser.get("/deliveries").await);
    let late = [("say", "reply"), ("option", "Inside"), ("question", "gone"), ("form_token", token.as_str())];
    let late = browser.ask(Method::POST, &format!("{page}/answer"), &[], Some(&late)).await;
    assert_eq!(late.status, 409, "{}", late.body);
    harness.manus.finish_all().await;
    harness.drain().await;
    assert_eq!(crm.bodies().last().expect("a turn")["event"]["message"], "Outside it is.");
    Browser::new(&harness).get(&page).await.shows("Outside it is.").shows("kim").shows("finished");
}

/// What does something where it is not escaped.
const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}\u{202e}</title><svg onload=alert(1)>";

#[tokio::test]
async fn hostile_content_is_text() {
    let crm = Recorder::start().await;
    let folder = "[archive]\nurl = \"file://{folder}/files\"\n[outbound]\nallow_private_addresses = true\n";
    let mut harness = start(setup(&crm, "").config(folder)).await;
    let said = format!(
        "{HOSTILE}\n\n[click](javascript:alert(1)) ![x](https://evil.example/x.png)\n\n<iframe src=\"https://evil.example\"></iframe>"
    );
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let plan = Plan::finish(&said).titled(HOSTILE).with_file("<b>x.svg", "image/svg+xml", svg).with_file(
        "page.html",
        "text/html",
        "<script>alert(1)</script>",
    );
    let task = harness.manus.create_task(KEY, plan);
    run(&harness, &task).await;
    harness.drain().await;
    let mut foreign = stopped("evil\"><script>alert(2)</script>", &task);
    foreign["task_detail"]["message"] = json!(HOSTILE);
    foreign["event_type"] = json!("<script>alert(3)</script>");
    let event = harness.accept(&foreign).await;
    harness.drain().await;
    let wrong = harness.post("/webhooks/manus?<script>alert(4)</script>").body(HOSTILE).send().await.expect("an answer");
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    harness.advance(Duration::from_secs(30)).await;
    let browser = Browser::new(&harness);
    let page = format!("/tasks/manus/{task}");
    let shown = browser.get(&page).await;
    let mut paths: Vec<String> = PAGES.map(ToOwned::to_owned).to_vec();
    paths.extend([page.clone(), format!("/events/{event}"), format!("/events/{event}/replay")]);
    for name in ["/rejections/", "/deliveries/"] {
        let list = browser.get(name.trim_end_matches('/')).await;
        let id =
            list.body.split_once(&format!("href=\"{name}")).map(|(_, rest)| rest.split_once('"').expect("its end").0.to_owned());
        paths.extend(id.map(|id| format!("{name}{id}")));
    }
    assert!(paths.len() >= 10, "{paths:?}");
    for path in &paths {
        let page = browser.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let body = page.body.to_lowercase();
        for alive in [
            "<script>",
            "<img src=x",
            "onerror=alert(1)>",
            "<svg onload",
            "<iframe src=\"https",
            "href=\"javascript:",
            "src=\"https://evil",
            "\u{202e}",
        ] {
            assert!(!body.contains(alive), "{alive} on {path}: {body}");
        }
        assert_eq!(body.matches("<script").count(), 1, "{path}: our own");
    }
    // What may hold a script is shown as text, or not at all.
    let links: Vec<_> = shown
        .body
        .match_indices("href=\"/files/")
        .map(|(at, _)| shown.body[at + 6..].split_once('"').expect("its end").0)
        .collect();
    assert_eq!(links.len(), 2, "{}", shown.body);
    for link in links {
        let file = browser.get(&link.replace("&amp;", "&")).await;
        assert_eq!((file.status, file.header("content-type")), (200, "text/plain; charset=utf-8"), "{link}");
        assert!(file.header("content-security-policy").starts_with("sandbox; default-src 'none'"), "{link}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert!(file.body.contains("alert(1)"));
    }
    let other = format!("/files/manus/{task}/{}", "0".repeat(64));
    assert_eq!(browser.get(&other).await.status, 404);
}

#[tokio::test]
async fn the_dashboard_is_small_and_asks_nobody_else() {
    let harness = Harness::new().await;
    let browser = Browser::new(&harness);
    let page = browser.get("/").await;
    let mut size = page.body.len();
    for (at, _) in page.body.match_indices("\"/assets/") {
        let path = page.body[at + 1..].split_once('"').expect("its end").0;
        let asset = browser.get(path).await;
        assert_eq!(asset.status, 200);
        size += asset.body.len();
        // The one address is the name of a kind of XML.
        let foreign = asset.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{path}");
    }
    assert!(size < 60_000, "{size}");
    assert_eq!(browser.get("/assets/old/style.css").await.header("cache-control"), "no-store");
    assert_eq!(browser.get("/assets/old/nothing.css").await.status, 404);
}
