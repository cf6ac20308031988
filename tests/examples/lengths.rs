//! Examples that people copy are short.

use std::path::Path;

#[test]
fn examples_to_copy_have_at_most_120_lines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in [
        "approvals",
        "axum",
        "custom_store",
        "policy_test",
        "quickstart",
        "rmcp_proxy",
        "shared_budget",
        "tower_layer",
        "tracing",
    ] {
        let text = std::fs::read_to_string(folder.join(name).with_extension("rs")).unwrap();
        assert!(text.lines().count() <= 120, "{name} has {} lines", text.lines().count());
    }
}
