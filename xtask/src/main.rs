//! Chores of the repository: `cargo xtask new-step NAME`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

/// Chores of the repository.
#[derive(Debug, Parser)]
enum Task {
    /// Makes a new kind of step: its folder, its line in the registry, its page.
    NewStep {
        /// The kind's name, as a runbook will write it: `restart`.
        name: String,
    },
}

fn main() -> Result<()> {
    let Task::NewStep { name } = Task::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this package stands in the workspace")?;
    for path in new_step(root, &name)? {
        println!("{}", path.strip_prefix(root).unwrap_or(&path).display());
    }
    println!("\nIt builds, and does nothing yet but say so. Next:");
    println!("  1. write its fields, plan and apply in crates/steps/src/{name}/step.rs");
    println!("  2. cargo nextest run -p pgrunbook-steps contract    (PGRUNBOOK_BLESS=1 writes the page's table)");
    println!("  3. a test in crates/steps/tests, a use in an example, a line in CHANGELOG.md");
    Ok(())
}

/// Writes the files; returns those that were written or changed.
fn new_step(root: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(plain, "`{name}` is no name for a kind: lower-case letters and digits, beginning with a letter");
    let source = root.join("crates/steps/src");
    let folder = source.join(name);
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    let type_name = name[..1].to_uppercase() + &name[1..];
    let fill = |template: &str| template.replace("NAME", name).replace("TYPE", &type_name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = Vec::new();
    for (path, text) in [
        (folder.join("mod.rs"), fill(MOD)),
        (folder.join("step.rs"), fill(STEP)),
        (root.join(format!("docs/steps/{name}.md")), fill(PAGE)),
    ] {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    let library = source.join("lib.rs");
    change(&library, |text| Some(text.replacen("mod approve;", &format!("mod approve;\nmod {name};"), 1)))?;
    let registry = source.join("registry.rs");
    change(&registry, |text| {
        let start = text.find("pub const KINDS")?;
        let end = start + text[start..].find("];")?;
        let (before, behind) = text.split_at(end);
        let comma = if before.trim_end().ends_with(',') { "" } else { "," };
        let text = format!("{}{comma} {name}::KIND{behind}", before.trim_end());
        Some(text.replacen("use crate::{", &format!("use crate::{{{name}, "), 1))
    })?;
    written.extend([library, registry]);
    // The order of `mod` and `use` is rustfmt's business.
    let _ =
        std::process::Command::new("cargo").args(["fmt", "--package", "pgrunbook-steps"]).current_dir(root).status();
    Ok(written)
}

fn change(path: &Path, edit: impl Fn(&str) -> Option<String>) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let changed = edit(&text).filter(|changed| *changed != text);
    let changed = changed.with_context(|| format!("{} does not look as expected", path.display()))?;
    fs::write(path, changed).with_context(|| format!("cannot write {}", path.display()))
}

const MOD: &str = "//! Says what it is, in one paragraph.\n\nmod step;\n\npub use step::KIND;\n";

const STEP: &str = r#"//! The block: `NAME = "some-id"`.

use pgrunbook_document::{Block, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use crate::registry::{Kind, bound_fields, fields};
use crate::workplace::Workplace;

/// The kind `NAME`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "NAME",
        language: Language::Toml,
        summary: "Says in one sentence what it does.",
        fields: &[],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check: |block| fields::<TYPE>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Says what it does.
///
/// Effect: idempotent. Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TYPE {
    #[serde(rename = "NAME")]
    id: String,
}

fn build(block: &Block, _workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    Ok(Box::new(bound_fields::<TYPE>(block)?))
}

impl Step for TYPE {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            Ok(Change { summary: format!("`{}` changes nothing yet", self.id), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, _cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { Ok(Evidence::of("nothing was done yet")) })
    }
}
"#;

const PAGE: &str = "# NAME\n\nSays in one sentence what it does.\n\n```toml step\nNAME = \"some-id\"\n```\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_kind_has_its_folder_its_line_and_its_page() {
        let root = std::env::temp_dir().join(format!("pgrunbook-new-step-{}", std::process::id()));
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in ["crates/steps/src/lib.rs", "crates/steps/src/registry.rs"] {
            let to = root.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(own.join(file), to).unwrap();
        }
        fs::create_dir_all(root.join("docs/steps")).unwrap();
        assert!(new_step(&root, "Bad-Name").is_err());
        assert_eq!(new_step(&root, "restart").unwrap().len(), 5);
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
        assert!(read("crates/steps/src/registry.rs").contains("restart::KIND"));
        assert!(read("crates/steps/src/lib.rs").contains("mod restart;"));
        assert!(read("crates/steps/src/restart/step.rs").contains("struct Restart {"));
        assert!(new_step(&root, "restart").unwrap_err().to_string().contains("is there already"));
        fs::remove_dir_all(&root).unwrap();
    }
}
