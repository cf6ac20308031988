//! The house stands as it was drawn: who may know whom, and what the README promises to show.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file, with the module of the crate's root that it belongs to.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root().join("src")).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests may look over any wall.
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                files.push((module, path, code));
            }
        }
    }
    assert!(files.len() > 20);
    files
}

/// Which modules of the root each module names.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, _, code) in sources() {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            for (at, _) in line.match_indices("crate::") {
                let name: String = line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if name != module && !name.is_empty() {
                    imports.entry(module.clone()).or_default().insert(name);
                }
            }
        }
    }
    imports
}

/// The rooms of `src/`, and the rooms that each may use.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("json", &[]),
    ("time", &[]),
    ("amount", &["json"]),
    ("call", &["json", "time"]),
    ("charge", &["amount", "call", "json", "time"]),
    ("redis", &[]),
    ("policy", &["amount", "call", "charge", "json", "time"]),
    ("store", &["amount", "call", "charge", "redis", "time"]),
    ("approval", &["call", "json", "policy", "redis", "time"]),
    ("decision", &["amount", "approval", "charge", "policy", "store", "time"]),
    ("audit", &["amount", "approval", "call", "decision", "json", "policy", "time"]),
    ("mcp", &["call", "decision", "json", "policy", "store"]),
    ("gate", &["amount", "approval", "audit", "call", "charge", "decision", "policy", "store", "time"]),
    ("grants", &["approval", "call", "decision", "gate", "policy", "store", "time"]),
];

/// `tools` may use every room, and no room uses them.
#[test]
fn rooms_use_only_what_they_may() {
    for (room, used) in imports() {
        if ["lib", "tools"].contains(&&*room) {
            continue;
        }
        let (_, may) =
            MAY_USE.iter().find(|(known, _)| *known == room).unwrap_or_else(|| panic!("unknown room {room}"));
        for used in used {
            assert!(may.contains(&&*used), "{room} may not use {used}");
        }
    }
}

#[test]
fn no_module_imports_itself_by_a_circle() {
    let imports = imports();
    let mut done: BTreeSet<String> = BTreeSet::new();
    loop {
        let free = imports.iter().find(|(module, known)| {
            !done.contains(*module) && known.iter().all(|known| done.contains(known) || !imports.contains_key(known))
        });
        match free {
            Some((module, _)) => done.insert(module.clone()),
            None => break,
        };
    }
    let left: Vec<_> = imports.keys().filter(|module| !done.contains(*module)).collect();
    assert!(left.is_empty(), "these import each other: {left:?}");
}

#[test]
fn the_face_defines_nothing() {
    let face = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for line in face.lines().filter(|line| !line.is_empty()) {
        let is_plain = ["#[cfg(", "#![", "mod ", "pub mod ", "pub use "].iter().any(|start| line.starts_with(start));
        assert!(is_plain, "{line}");
    }
}

#[test]
fn the_changelog_tells_of_this_version() {
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

/// Of the documents in the guides: an example that is a whole policy.
#[test]
fn policies_in_the_guides_can_be_read() {
    let mut policies = 0;
    for page in ["README.md", "docs/language.md", "docs/limits.md", "docs/tools.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        for example in text.split("\n```json\n").skip(1) {
            let json = example.split_once("\n```").unwrap().0;
            if json.contains("\"version\"") {
                policies += 1;
                toolgate::Policy::from_json(json).unwrap_or_else(|error| panic!("{page}: {error}"));
            }
        }
    }
    assert!(policies >= 4);
}
