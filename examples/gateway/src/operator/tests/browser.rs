//! A headless Chromium, driven through ChromeDriver.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::requests::send;

/// A browser for each test is enough for a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Browser {
    pub(super) client: Client,
    driver: Driver,
    downloads: Folder,
    _turn: MutexGuard<'static, ()>,
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // The system cleans its folder for temporary files anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// ChromeDriver, which ends the browser when it ends.
struct Driver {
    process: Child,
    url: String,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Driver {
    fn start() -> Option<Self> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "chromedriver cannot be started: {error}");
                println!("skipped: chromedriver cannot be started: {error}");
                return None;
            }
        };
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        Some(Self { process, url: format!("http://127.0.0.1:{}", port.expect("the port of chromedriver")) })
    }
}

impl Browser {
    /// A window of 1280 × 900 pixels in light colours.
    pub(super) async fn desktop() -> Option<Self> {
        Self::start(json!({ "args": ["--window-size=1280,900"] })).await
    }

    /// The same in dark colours.
    pub(super) async fn dark() -> Option<Self> {
        Self::start(json!({ "args": ["--window-size=1280,900", "--force-dark-mode"] })).await
    }

    /// The screen of a small phone: 360 × 740 pixels.
    pub(super) async fn phone() -> Option<Self> {
        let metrics = json!({ "width": 360, "height": 740, "pixelRatio": 1 });
        Self::start(json!({ "args": [], "mobileEmulation": { "deviceMetrics": metrics } })).await
    }

    async fn start(mut options: Value) -> Option<Self> {
        let turn = ONE_AT_A_TIME.lock().await;
        let driver = Driver::start()?;
        let args = options["args"].as_array_mut().unwrap();
        // A container has no namespaces for the sandbox, and little shared memory.
        let common = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-GB"];
        args.extend(common.map(Value::from));
        let downloads = Folder(std::env::temp_dir().join(format!("toolgate-operator-{}", driver.process.id())));
        options["prefs"] = json!({ "download.default_directory": downloads.0 });
        let capabilities = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let client = builder.connect(&driver.url).await.unwrap();
        Some(Self { client, driver, downloads, _turn: turn })
    }

    pub(super) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub(super) async fn wait_for(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Waits until the visible text of an element has these words.
    pub(super) async fn wait_for_text(&self, css: &str, words: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = self.text(css).await;
            if text.contains(words) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{css} has `{text}`, not `{words}`");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.run(script, vec![css.into()]).await.as_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn click(&self, css: &str) {
        self.wait_for(css).await.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Clicks the first visible button below `css` whose text begins with this one.
    pub(super) async fn press(&self, css: &str, text: &str) {
        self.wait_for(css).await;
        let script = "const [css, text] = arguments; \
            const fits = (one) => one.innerText.trim().startsWith(text) && one.checkVisibility(); \
            return [...document.querySelectorAll(`${css} button`)].find(fits)";
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.run(script, vec![css.into(), text.into()]).await;
            if !found.is_null() {
                let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
                let element = Element::from_element_id(self.client.clone(), id.into());
                element.click().await.unwrap_or_else(|error| panic!("{text}: {error}"));
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{css} has no button `{text}`");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Types into a field, in place of what it has.
    pub(super) async fn write(&self, css: &str, text: &str) {
        let field = self.wait_for(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Puts a long text into a field as a paste does.
    pub(super) async fn paste(&self, css: &str, text: &str) {
        let script = "const field = document.querySelector(arguments[0]); field.focus(); field.select(); \
            document.execCommand('insertText', false, arguments[1])";
        self.run(script, vec![css.into(), text.into()]).await;
    }

    pub(super) async fn keys(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Presses Tab until the focus is on an element that matches, as somebody without a mouse does.
    pub(super) async fn tab_to(&self, css: &str) {
        let tab = char::from(Key::Tab).to_string();
        for _ in 0..60 {
            let script =
                "const a = document.activeElement; return a.matches(arguments[0]) && a.matches(':focus-visible')";
            if self.run(script, vec![css.into()]).await == true {
                return;
            }
            self.keys(&tab).await;
        }
        panic!("the keyboard does not reach {css}");
    }

    pub(super) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Returns what the console has: errors of scripts, violations of the content security policy.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let session = self.client.session_id().await.unwrap().unwrap();
        let url = format!("{}/session/{session}/se/log", self.driver.url);
        let answer = send("POST", &url, &[], Some(json!({ "type": "browser" }))).await.json();
        let entries = answer["value"].as_array().expect("a log of the browser").iter();
        let loud = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        // A refused request is an answer that the page shows, and tests provoke it.
        let is_answer = |line: &String| line.contains("/api/") && line.contains("Failed to load resource");
        loud.map(|entry| entry["message"].to_string()).filter(|line| !is_answer(line)).collect()
    }

    /// Waits for a file that the page saves, and returns its text.
    pub(super) async fn downloaded(&self, name: &str) -> String {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read_to_string(self.downloads.0.join(name)) {
                return text;
            }
            assert!(tokio::time::Instant::now() < end, "{name} is not downloaded");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the browser, and asserts that the page has had no errors.
    pub(super) async fn close(self) {
        let complaints = self.complaints().await;
        self.client.clone().close().await.unwrap();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}
