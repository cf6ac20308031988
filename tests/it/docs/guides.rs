//! The README, the guides and the changelog, compared with the code.

use syn::Item;

use super::root;

#[test]
fn lib_only_reexports() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for item in syn::parse_file(&text).unwrap().items {
        let is_plain = match &item {
            Item::Mod(module) => module.content.is_none(),
            Item::Use(_) => true,
            _ => false,
        };
        assert!(is_plain, "lib.rs defines something");
    }
}

#[test]
fn changelog_has_a_section_for_this_version() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = format!("\n## {}", env!("CARGO_PKG_VERSION"));
    let section = text.split_once("\n## Unreleased").or_else(|| text.split_once(&version)).unwrap().1;
    assert!(section.lines().filter(|line| line.starts_with("- ")).count() > 0, "nothing is said of this version");
}

#[test]
fn the_guide_to_gateways_shows_the_quick_start() {
    let guide = std::fs::read_to_string(root().join("docs/gateways.md")).unwrap();
    let example = std::fs::read_to_string(root().join("examples/quickstart.rs")).unwrap();
    let code = example.split_once("\nuse ").unwrap().1;
    assert!(guide.contains(code), "the program in docs/gateways.md is not examples/quickstart.rs");
}

/// The guide has lines of the example, with less indentation.
#[test]
fn the_guide_to_gateways_shows_the_rmcp_proxy() {
    let guide = std::fs::read_to_string(root().join("docs/gateways.md")).unwrap();
    let example = std::fs::read_to_string(root().join("examples/rmcp_proxy.rs")).unwrap();
    let shown = guide.split_once("\n```rust,ignore\n").unwrap().1.split_once("```\n").unwrap().0;
    let indented: String = shown.lines().map(|line| format!("        {line}\n")).collect();
    assert!(shown.lines().count() > 10 && example.contains(&indented), "docs/gateways.md has other lines");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = page.split_once("\n## Dependencies\n").unwrap().1.split_once("\n## ").unwrap().0;
    let section = manifest.split_once("\n[dependencies]\n").unwrap().1.split_once("\n[").unwrap().0;
    let names: Vec<_> = section.lines().filter_map(|line| Some(line.split_once(" =")?.0)).collect();
    assert!(names.len() > 8);
    for name in names {
        assert!(table.contains(&format!("`{name}`")), "docs/architecture.md gives no reason for {name}");
    }
}

#[test]
fn the_readme_has_at_most_200_lines() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200);
}

/// Reads each example in the guides that is a whole policy.
#[test]
fn policies_in_the_guides_can_be_read() {
    let mut policies = 0;
    for page in ["README.md", "docs/language.md", "docs/limits.md", "docs/ci.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        for example in text.split("\n```json\n").skip(1) {
            let json = example.split_once("\n```").unwrap().0;
            if json.contains("\"version\": \"1\"") {
                policies += 1;
                toolgate::Policy::from_json(json).unwrap_or_else(|error| panic!("{page}: {error}"));
            }
        }
    }
    assert!(policies >= 4);
}
