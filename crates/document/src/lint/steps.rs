//! Rules about the blocks that run.

use std::collections::BTreeMap;

use super::has_step;
use crate::diagnostic::{Diagnostic, Severity};
use crate::model::{Block, Runbook, Undo, Validity, VarValue, steps_of};
use crate::parse::Values;
use crate::vocabulary::{KindSpec, Vocabulary};

pub(super) fn look(runbook: &Runbook, vocabulary: Vocabulary<'_>, found: &mut Vec<Diagnostic>) {
    duplicates(runbook, found);
    validities(runbook, found);
    let values = stand_ins(runbook);
    for block in runbook.blocks() {
        let Some(kind) = vocabulary.find(&block.kind) else { continue };
        if let Err(one) = (kind.check)(block) {
            found.push(one);
        }
        target(runbook, block, kind, found);
        variables(block, &values, found);
        expectation(block, kind, found);
    }
    for block in runbook.forward_steps() {
        if let Some(kind) = vocabulary.find(&block.kind) {
            undo(runbook, block, kind, vocabulary, found);
        }
    }
    let named = |id: &str| {
        runbook.blocks().any(|block| matches!(&block.undo, Some(undo) if undo.value == Undo::Named(id.to_owned())))
    };
    for block in &runbook.undo_blocks {
        if !named(block.id.as_str()) {
            found.push(
                Diagnostic::warning("unused-undo", block.id_span, format!("no step is undone by `{}`", block.id)).help(
                    format!("write `undo: {0}` (SQL) or `undo = \"{0}\"` (TOML) on the step it takes back", block.id),
                ),
            );
        }
    }
}

fn duplicates(runbook: &Runbook, found: &mut Vec<Diagnostic>) {
    let mut first: BTreeMap<&str, &Block> = BTreeMap::new();
    for block in runbook.blocks() {
        if let Some(before) = first.get(block.id.as_str()) {
            let line = runbook
                .sources
                .get(before.id_span.file)
                .and_then(|source| source.text.get(..before.id_span.start))
                .map_or(1, |text| text.matches('\n').count() + 1);
            found.push(
                Diagnostic::error("duplicate-id", block.id_span, format!("`{}` is the id of another block", block.id))
                    .label(format!("first on line {line}"))
                    .help("give it another id: evidence, undo and resume go by it"),
            );
        } else {
            first.insert(block.id.as_str(), block);
        }
    }
}

fn validities(runbook: &Runbook, found: &mut Vec<Diagnostic>) {
    for path in &runbook.rollback_paths {
        for valid in &path.valid {
            let (step, in_section) = match &valid.value {
                Validity::Until(step) | Validity::After(step) | Validity::For(_, step) => (step, false),
                Validity::While(step) => (step, true),
            };
            let known = if in_section {
                steps_of(&path.entries).any(|block| block.id == *step)
            } else {
                has_step(runbook, step.as_str())
            };
            if !known {
                let message = match in_section {
                    true => format!("no check `{step}` stands in this section"),
                    false => format!("there is no step `{step}`"),
                };
                let help = crate::parse::nearest(step.as_str(), &ids(runbook)).map_or_else(
                    || "name a step of this runbook".to_owned(),
                    |meant| format!("did you mean `{meant}`?"),
                );
                found.push(Diagnostic::error("unknown-step", valid.span, message).help(help));
            }
        }
    }
}

fn ids(runbook: &Runbook) -> Vec<&str> {
    runbook.blocks().map(|block| block.id.as_str()).collect()
}

fn target(runbook: &Runbook, block: &Block, kind: &KindSpec, found: &mut Vec<Diagnostic>) {
    let listed = &runbook.settings.targets;
    match &block.target {
        None if kind.needs_target => {
            let example = listed.first().map_or("main", |target| target.value.as_str());
            found.push(
                Diagnostic::error(
                    "missing-target",
                    block.id_span,
                    format!("`{}` does not say where it acts", block.id),
                )
                .help(match block.language {
                    crate::model::Language::Sql => format!("write `target: {example}` beside the id"),
                    crate::model::Language::Toml => format!("write `target = \"{example}\"`"),
                }),
            );
        }
        Some(target)
            if !listed.is_empty()
                && !target.value.contains("${")
                && !listed.iter().any(|known| known.value == target.value) =>
        {
            let names: Vec<&str> = listed.iter().map(|known| known.value.as_str()).collect();
            let help = match crate::parse::nearest(&target.value, &names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the `toml runbook` block lists {}", names.join(", ")),
            };
            let message = format!("target `{}` is not listed by this runbook", target.value);
            found.push(Diagnostic::error("unknown-target", target.span, message).help(help));
        }
        _ => {}
    }
}

fn undo(runbook: &Runbook, block: &Block, kind: &KindSpec, vocabulary: Vocabulary<'_>, found: &mut Vec<Diagnostic>) {
    if !kind.changes {
        return;
    }
    let Some(undo) = &block.undo else {
        let own = kind.undo_words.iter().map(|word| format!("`{word}`, ")).collect::<String>();
        found.push(
            Diagnostic::error(
                "missing-undo",
                block.id_span,
                format!("`{}` changes something and does not say how that is undone", block.id),
            )
            .help(format!(
                "write `undo`: {own}the id of an `undo` block or of a backup, `none: why`, or `one-way: why`"
            )),
        );
        return;
    };
    let Undo::Named(name) = &undo.value else {
        if undo.value == Undo::Auto && !kind.undo_words.contains(&"auto") {
            found.push(
                Diagnostic::error("bad-undo", undo.span, format!("a `{}` step cannot undo itself", kind.name))
                    .help("write an `undo` block and name it, or `none: why`"),
            );
        }
        return;
    };
    if kind.undo_words.contains(&name.as_str()) || runbook.undo_blocks.iter().any(|by| by.id.as_str() == name) {
        return;
    }
    let mut before = runbook.forward_steps().take_while(|step| step.id != block.id);
    if before.any(|step| step.id.as_str() == name && vocabulary.find(&step.kind).is_some_and(|kind| !kind.changes)) {
        return;
    }
    let known: Vec<&str> =
        runbook.undo_blocks.iter().map(|by| by.id.as_str()).chain(kind.undo_words.iter().copied()).collect();
    let help = match crate::parse::nearest(name, &known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write a block marked `undo` with the id `{name}`"),
    };
    let message = format!("no undo block and no backup before `{}` is named `{name}`", block.id);
    found.push(Diagnostic::error("undo-names-nothing", undo.span, message).help(help));
}

/// A value for every variable that is declared, of the type that its default has.
fn stand_ins(runbook: &Runbook) -> Values {
    let stand_in = |default: &Option<VarValue>| match default {
        Some(VarValue::List(values)) if values.is_empty() => VarValue::List(vec!["x".to_owned()]),
        Some(value) => value.clone(),
        None => VarValue::Text("x".to_owned()),
    };
    runbook.settings.vars.iter().map(|(name, variable)| (name.clone(), stand_in(&variable.default))).collect()
}

fn variables(block: &Block, values: &Values, found: &mut Vec<Diagnostic>) {
    let Err(one) = block.expand(values) else { return };
    // A variable without a default may be a list: that is known when the run is planned.
    if one.code == "unset-variable" {
        found.push(one);
    }
}

fn expectation(block: &Block, kind: &KindSpec, found: &mut Vec<Diagnostic>) {
    let Some(body) = &block.sql else { return };
    if !kind.changes && body.expectations.is_empty() {
        found.push(
            Diagnostic {
                severity: Severity::Warning,
                ..Diagnostic::error(
                    "no-expectation",
                    block.id_span,
                    format!("`{}` is satisfied with any answer", block.id),
                )
            }
            .help("write `-- expect: 0 rows`, `rows >= 1`, `value = 't'`, `each row x = true` or `error 42501`"),
        );
    }
}
