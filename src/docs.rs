//! The guides: the policy language, how to use the crate, and how it is built.
//!
//! These are the pages of the folder `docs/`. The module exists in the documentation only, so that
//! the pages are read beside the items, and so that every example is compiled.

// The examples of some pages need these features. The pages are shown without them, too.
#![cfg(any(
    not(doctest),
    all(
        feature = "analysis",
        feature = "leased",
        feature = "recommend",
        feature = "redis",
        feature = "replay",
        feature = "signed",
        feature = "testing"
    )
))]

// The pages link to each other by labels. Of two definitions of a label the first is used: here
// those of `docs.links`, on a code host those at the end of the page. A failed doctest counts the
// lines of `docs.links` too: line 100 of a page is reported as line 119.
macro_rules! pages {
    ($($page:ident = $file:literal;)*) => {$(
        #[doc = include_str!("docs.links")]
        #[doc = include_str!($file)]
        pub mod $page {}
    )*};
}

pages! {
    language = "../docs/language.md";
    limits = "../docs/limits.md";
    approvals = "../docs/approvals.md";
    gateways = "../docs/gateways.md";
    operator = "../docs/operator.md";
    operations = "../docs/operations.md";
    tools = "../docs/tools.md";
    ci = "../docs/ci.md";
    testing = "../docs/testing.md";
    performance = "../docs/performance.md";
    trace_format = "../docs/trace-format.md";
    architecture = "../docs/architecture.md";
    security = "../SECURITY.md";
}
