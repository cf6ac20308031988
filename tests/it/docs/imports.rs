//! The import rules of `docs/architecture.md`: which module may use which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path as FilePath;

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, ItemUse, Path, UseTree, Visibility};

use super::root;

/// A path of names below the crate's root; the root itself is empty.
type Names = Vec<String>;

/// One file of `src/`, as a module: `gate::shadow`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Module(Names);

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("::"))
    }
}

/// The paths that a file names outside its tests, each beside the module that it is relative to.
#[derive(Default)]
struct Source {
    imports: Vec<(Names, Names)>,
    /// The paths that it re-exports, by name.
    exports: BTreeMap<String, (Names, Names)>,
    /// The module that is being read: of the file, or inside it.
    at: Names,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
            })
    })
}

fn flatten(tree: &UseTree, prefix: &Names, paths: &mut Vec<(String, Names)>) {
    let with = |name: &syn::Ident| prefix.iter().cloned().chain([name.to_string()]).collect();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), paths),
        UseTree::Name(name) if name.ident == "self" => {
            paths.push((prefix.last().cloned().unwrap_or_default(), prefix.clone()));
        }
        UseTree::Name(name) => paths.push((name.ident.to_string(), with(&name.ident))),
        UseTree::Rename(name) => paths.push((name.rename.to_string(), with(&name.ident))),
        UseTree::Glob(_) => paths.push(("*".to_owned(), prefix.clone())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, paths)),
    }
}

impl Visit<'_> for Source {
    fn visit_item(&mut self, item: &Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &ItemMod) {
        self.at.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &Names::new(), &mut paths);
        for (name, path) in paths {
            if matches!(item.vis, Visibility::Inherited) {
                self.imports.push((self.at.clone(), path));
            } else {
                self.exports.insert(name, (self.at.clone(), path));
            }
        }
    }

    fn visit_path(&mut self, path: &Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A lone `crate` is a visibility.
        if names.len() > 1 && names.first().is_some_and(|first| ["crate", "self", "super"].contains(&first.as_str())) {
            self.imports.push((self.at.clone(), names));
        }
        visit::visit_path(self, path);
    }
}

struct Sources(BTreeMap<Module, Source>);

impl Sources {
    fn read() -> Self {
        let (start, mut all) = (root().join("src"), BTreeMap::new());
        let mut folders = vec![start.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("src/bin") {
                    // The command is a crate of its own: it can use the public API alone.
                } else if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let module = Module::of(path.strip_prefix(&start).unwrap());
                    let file: File = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
                    let mut source = Source { at: module.0.clone(), ..Source::default() };
                    source.visit_file(&file);
                    all.insert(module, source);
                }
            }
        }
        assert!(all.len() > 100);
        Self(all)
    }

    /// The file in which a path ends, through re-exports; `None` if it leads out of the crate.
    fn defining(&self, at: &Names, path: &Names) -> Option<Module> {
        let mut rest = path.as_slice();
        let mut here = at.clone();
        let first = rest.first()?;
        if first == "crate" {
            (here, rest) = (Names::new(), &rest[1..]);
        } else if first == "self" {
            rest = &rest[1..];
        } else if first == "super" {
            while rest.first().is_some_and(|name| name == "super") {
                here.pop();
                rest = &rest[1..];
            }
        } else if !self.0.contains_key(&Module([here.as_slice(), &rest[..1]].concat())) {
            return None;
        }
        while let Some((name, inner)) = rest.split_first() {
            let child = Module([here.as_slice(), std::slice::from_ref(name)].concat());
            if !self.0.contains_key(&child) {
                break;
            }
            (here, rest) = (child.0, inner);
        }
        while !self.0.contains_key(&Module(here.clone())) {
            here.pop();
        }
        let export = rest.first().and_then(|name| self.0[&Module(here.clone())].exports.get(name));
        export.and_then(|(at, path)| self.defining(at, path)).or(Some(Module(here)))
    }

    /// Each file, and the files whose items it uses.
    fn uses(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let uses = |(module, source): (_, &Source)| {
            let used = source.imports.iter().filter_map(|(at, path)| self.defining(at, path));
            (module, used.filter(|used| used != module).collect())
        };
        self.0.iter().map(uses).collect()
    }
}

impl Module {
    fn of(file: &FilePath) -> Self {
        let mut names: Names = file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        if names.last().is_some_and(|name| ["mod", "lib"].contains(&name.as_str())) {
            names.pop();
        }
        Self(names)
    }

    /// The module of the crate's root that it belongs to.
    fn top(&self) -> &str {
        self.0.first().map_or("lib", String::as_str)
    }

    fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// Its name in the tables of the page: a tool is named with its folder.
    fn in_the_tables(&self) -> String {
        let depth = if self.top() == "tools" { 2 } else { 1 };
        self.0.iter().take(depth).cloned().collect::<Vec<_>>().join("/")
    }
}

fn section() -> String {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    page.split_once("## Import rules").unwrap().1.split("\n## ").next().unwrap().to_owned()
}

/// The rows of the table under such a header, as cells without the marks of code.
fn table(header: &str) -> Vec<Vec<String>> {
    let section = section();
    let rows = section.lines().map(str::trim).skip_while(|line| *line != header).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let table: Vec<Vec<String>> = rows.take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(table.len() > 3, "{header}");
    table
}

#[test]
fn modules_use_only_lower_levels() {
    let mut levels: BTreeMap<String, usize> = BTreeMap::new();
    for row in table("| level | modules |") {
        let level = row[0].parse().unwrap();
        levels.extend(row[1].split(", ").map(|module| (module.to_owned(), level)));
    }
    let sources = Sources::read();
    for (module, used) in sources.uses() {
        for other in used.iter().filter(|other| other.top() != module.top()) {
            let level = |of: &Module| levels.get(of.top()).copied();
            let (own, its) = (level(module), level(other));
            assert!(own.is_none() && ["lib", "docs"].contains(&module.top()) || its < own, "{module} uses {other}");
            assert!(its.is_some(), "`{other}`, which {module} uses, has no level in docs/architecture.md");
        }
    }
}

#[test]
fn only_listed_modules_use_policy_and_store() {
    let sources = Sources::read();
    let mut tops: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, used) in sources.uses() {
        let known = used.iter().map(|other| other.top().to_owned());
        tops.entry(module.in_the_tables()).or_default().extend(known);
    }
    let knows = |module: &str, top: &str| module == top || tops[module].contains(top);
    let both = tops.keys().filter(|module| knows(module, "policy") && knows(module, "store"));
    let listed: BTreeSet<String> = table("| module | reason |").into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(both.cloned().collect::<BTreeSet<_>>(), listed);
}

#[test]
fn tools_use_each_other_as_listed() {
    let between = [("diff", "explain"), ("lint", "explain"), ("replay", "trace"), ("testing", "trace")];
    let sources = Sources::read();
    for (module, used) in sources.uses() {
        let [tools, tool, ..] = module.0.as_slice() else { continue };
        if tools != "tools" {
            continue;
        }
        for other in &used {
            let is_pure = ["diff", "lint", "intercept", "recommend"].contains(&tool.as_str());
            assert!(!is_pure || !["gate", "store"].contains(&other.top()), "{module} uses {other}");
            let Some(second) = other.0.get(1).filter(|name| other.top() == "tools" && *name != tool) else { continue };
            assert!(between.contains(&(tool, second)), "{module} uses {other}");
        }
    }
}

/// A file may use the modules that it lies in: a child extends its parent.
#[test]
fn no_files_import_each_other() {
    let sources = Sources::read();
    let mut uses = sources.uses();
    for (module, used) in &mut uses {
        used.retain(|other| !module.is_below(other));
    }
    let reaches = |from: &Module, to: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            if module == *to {
                return true;
            }
            if seen.insert(module.clone()) {
                next.extend(uses.get(&module).into_iter().flatten().cloned());
            }
        }
        false
    };
    let edges = uses.iter().flat_map(|(module, used)| used.iter().map(move |other| (*module, other)));
    let circular: Vec<_> = edges.filter(|(module, other)| reaches(other, module)).collect();
    let shown: Vec<String> = circular.iter().map(|(module, other)| format!("{module} -> {other}")).collect();
    assert!(shown.is_empty(), "circles of imports: {shown:#?}");
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    for module in Sources::read().0.keys() {
        let name = module.0.last().map_or("", String::as_str);
        assert!(
            !["common", "error", "helpers", "prelude", "support", "types", "utils"].contains(&name)
                || module.top() == "policy",
            "{module}"
        );
    }
}
