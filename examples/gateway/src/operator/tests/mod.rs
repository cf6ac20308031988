//! The page in a real browser, and its interface.
//!
//! Needs Debian's `chromium` and `chromium-driver`. Without them, the tests of the page are skipped
//! with a printed reason, except with `CI=true`, where they fail.

mod api;
mod approvals;
mod browser;
mod gateway;
mod looks;
mod requests;
mod workbench;

use browser::Browser;
use gateway::Gateway;

/// The gateway and a browser that is signed in, or `None` without a browser.
async fn opened() -> Option<(Gateway, Browser)> {
    opened_at(Browser::desktop()).await
}

async fn opened_at(browser: impl Future<Output = Option<Browser>>) -> Option<(Gateway, Browser)> {
    let browser = browser.await?;
    let gateway = Gateway::start().await;
    browser.open(&gateway.page()).await;
    browser.wait_for("#nav a").await;
    Some((gateway, browser))
}
